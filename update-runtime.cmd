@echo off
rem Installs what Dreamer runs on, on Windows; docs\windows.md says more.
rem update-runtime.cmd --help tells its options.
setlocal
set "PYTHONHOME="
set "PYTHONPATH="
set "SETUP=%~dp0hordelib\setup\plain_setup.py"
if defined PYTHON (
    "%PYTHON%" -I "%SETUP%" %*
    exit /b
)
where py >nul 2>nul
if not errorlevel 1 (
    py -3 -I "%SETUP%" %*
    exit /b
)
where python >nul 2>nul
if not errorlevel 1 (
    python -I "%SETUP%" %*
    exit /b
)
>&2 echo error: there is no Python; install 3.11 or newer of python.org, or name one: set PYTHON=C:\path\to\python.exe
exit /b 1
