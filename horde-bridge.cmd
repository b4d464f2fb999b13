@echo off
rem Starts Dreamer on Windows. Sets up what it runs on when that is missing or outdated.
rem docs\windows.md says more; horde-bridge.cmd --help lists the commands.
setlocal
if not defined DREAMER_RUNTIME set "DREAMER_RUNTIME=%~dp0."
call "%~dp0update-runtime.cmd" --quiet
if errorlevel 1 exit /b
set "PYTHONPATH=%~dp0."
set "PYTHONHOME="
set "OWNER=--home "%~dp0.""
if /i "%~1"=="--home" set "OWNER="
"%DREAMER_RUNTIME%\.venv\Scripts\python.exe" -P -m worker %OWNER% %*
exit /b
