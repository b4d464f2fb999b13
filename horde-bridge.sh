#!/usr/bin/env bash
# Starts Dreamer. Sets up what it runs on when that is missing or outdated.
set -euo pipefail
umask o-w # a group may share the models folder; update-runtime.sh keeps what it installs from it

usage() {
    cat <<'USAGE'
usage: ./horde-bridge.sh [--home FOLDER] COMMAND [OPTIONS]

  demo      serve jobs of a local horde with a small model, and show the pictures
  setup     ask for key, name and models that fit, and write bridgeData.yaml
  run       serve the AI Horde as bridgeData.yaml says
  check     check your setup; each line that failed says how to fix it
  status    what the worker is doing, and what it has done
  pause     take no more jobs and free the graphics card, once the jobs in hand are done
  resume    serve again after a pause
  drain     finish the jobs in hand, then end the worker
  restart   finish the jobs in hand, then begin anew with what bridgeData.yaml says by then
  notify    send a trial notice to the addresses that bridgeData.yaml names
  report    write a zip for those who help you, without keys, names and prompts
  worker    show or change the horde's record of this worker: maintenance, info, team
  models    list, add, remove and verify models; show the most used ones, and the disk
  fetch     download the weights of the first nine control types (1.9 GB)
  sandbox   run the local horde alone, to try clients and workers by hand
  benchmark measure this machine (benchmark memory --quick)
  test      run the test suite; what follows goes to pytest (test tests/chaos -k kill)

--home is the folder of bridgeData.yaml, models and logs, where that is not this one.
./horde-bridge.sh COMMAND --help tells more about a command.
The first run installs what is needed into this folder; ./update-runtime.sh --help tells more.
USAGE
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

in_venv() { "$runtime/.venv/bin/python" -P "$@"; }

# Progress is no part of a command's own output. A signal to the launcher alone reaches the set-up
# too: it runs beside us, because bash would only look at signals after its end.
set_up() {
    "$project/update-runtime.sh" --quiet "$@" >&2 &
    trap 'stop_set_up 130' INT
    trap 'stop_set_up 143' TERM
    trap 'stop_set_up 129' HUP
    wait $!
    trap - INT TERM HUP
}

stop_set_up() { # exit code
    kill -TERM $! 2>/dev/null || true
    wait $! || true
    exit "$1"
}

# --- the test command -----------------------------------------------------------------------

failed=''

check() { # name, then its command
    local name=$1
    shift
    printf '== %s\n' "$name"
    "$@" || failed="$failed $name"
}

# pytest comes last and has the last word; what failed before it is in the exit code. Types take a
# minute, so that they are one of the tests (tests/test_types.py), beside the others.
run_floor() {
    trap 'exit 130' INT # a tool that handles Ctrl-C itself must not send us on to the next one
    check format in_venv -m ruff format --check .
    check lint in_venv -m ruff check .
    check imports in_venv -c 'from importlinter.cli import lint_imports_command as lint; lint()'
    if [ -n "$failed" ]; then
        printf '== FAILED:%s (the tests follow, the exit code will be 1)\n' "$failed"
    else
        printf '== format, lint and imports are clean\n'
    fi
    printf '== tests\n'
    # A file to each process, with one thread: faster than one with more threads. There are two more
    # than two cores need, since many tests wait for another process. The longest files come first.
    export OMP_NUM_THREADS=1
    set -- -n 4 --dist loadfile --no-loadscope-reorder
    if [ -z "$failed" ]; then
        run_pytest "$@"
    fi
    in_venv -m pytest "$@" || true
    exit 1
}

run_tests() { # what pytest shall run, or nothing for the whole quality floor
    cd "$project"
    unset PYTHONDONTWRITEBYTECODE # hundreds of processes would compile all that they import
    if [ $# -eq 0 ]; then
        run_floor
    else
        run_pytest "$@"
    fi
}

run_pytest() { exec "$runtime/.venv/bin/python" -P -m pytest "$@"; }

test_usage() {
    cat <<'USAGE'
usage: ./horde-bridge.sh test [PYTEST ARGUMENTS]

Without arguments: format, lint, import contract, then all tests, of which types are one; exit
code 1 if any fails.
With arguments: pytest alone, in the project's folder (test tests/chaos -k kill).
USAGE
}

benchmark_usage() {
    cat <<'USAGE'
usage: ./horde-bridge.sh benchmark NAME [--quick] [--json FILE] [--html FILE]
       ./horde-bridge.sh benchmark report A.json [B.json] [--html FILE]

  engine    what the engine does without HTTP and without reading models
  worker    a whole worker against a local horde: pictures an hour, and where time goes
  compare   the same work on ours, ComfyUI, horde-engine 2.22.2 and diffusers, with ratios
  scale     the cost of a job: many jobs, a long queue, many devices
  memory    what jobs were thought to take of memory, and what they took
  switch    what a change of models costs
  judge     what it takes to judge a picture before it leaves
  seconds   how near predicted seconds are; --teach has the worker learn from it
  card      what an NVIDIA card does, in 12 minutes: facts, tests, speeds, small memory
  tune      proposes max_power, max_batch, queue_size… for this machine; --write sets them
  report    shows the results of a run, or compares two

  --quick   a few small cases
  --json    write the results there
  --html    write a page with tables and plots there

benchmark NAME --help tells its own options; Ctrl-C keeps what is done.
USAGE
}

# --- where things are -----------------------------------------------------------------------

# The folder of this script, whatever the working directory and whichever symlink led here.
script=${BASH_SOURCE[0]}
while [ -L "$script" ]; do
    link=$(readlink "$script")
    case $link in /*) script=$link ;; *) script=$(dirname "$script")/$link ;; esac
done
project=$(cd -P "$(dirname "$script")" && pwd)
runtime=${DREAMER_RUNTIME:-$project}
case $runtime in /*) ;; *) runtime=$PWD/$runtime ;; esac
export DREAMER_RUNTIME=$runtime

# The environment may be shared by several clones, so it holds none of them: this clone's packages
# come from here, and -P keeps a folder named `worker` in the working directory out of the way.
export PYTHONPATH=$project
unset PYTHONHOME

# The owner's folder, with bridgeData.yaml and models: this clone's, unless --home says otherwise.
home=$project
case ${1:-} in
    --home)
        [ -d "${2:-}" ] || die "--home ${2:-}: there is no such folder"
        home=$(cd "$2" && pwd)
        shift 2
        ;;
    --home=*)
        [ -d "${1#--home=}" ] || die "$1: there is no such folder"
        home=$(cd "${1#--home=}" && pwd)
        shift
        ;;
esac

case ${1:-} in
    '' | -h | --help | help)
        usage
        exit
        ;;
    demo | setup | run | check | status | pause | resume | drain | restart | notify | report | worker | models | fetch | sandbox | benchmark | test) ;;
    *)
        printf 'error: there is no command %s\n\n' "$1" >&2
        usage >&2
        exit 2
        ;;
esac
case $project in *:*) die "the path $project has a colon, which Python cannot import from" ;; esac

command=$1
shift
case $command:${1:-} in
    test:-h | test:--help)
        test_usage
        ;;
    benchmark:-h | benchmark:--help)
        benchmark_usage
        ;;
    benchmark:*)
        set_up
        exec "$runtime/.venv/bin/python" -P -m benchmarks "$@"
        ;;
    *:-h | *:--help) # told without a set-up
        cd "$project"
        python=$runtime/.venv/bin/python
        [ -x "$python" ] || python=${PYTHON:-python3}
        exec "$python" -m worker "$command" --help
        ;;
    test:*)
        set_up --test
        run_tests "$@"
        ;;
    status:* | pause:* | resume:* | drain:* | restart:* | notify:* | report:* | worker:*) # for a worker that is there already
        if ! [ -x "$runtime/.venv/bin/python" ]; then
            die "nothing is installed in $runtime. Set DREAMER_RUNTIME as for the worker, or run" \
                "./horde-bridge.sh check, which installs it there"
        fi
        exec "$runtime/.venv/bin/python" -P -m worker --home "$home" "$command" "$@"
        ;;
    *)
        set_up
        exec "$runtime/.venv/bin/python" -P -m worker --home "$home" "$command" "$@"
        ;;
esac
