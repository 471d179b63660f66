# Sourced by what works in several labs side by side; `here` is this folder, `scratch` a folder of the script's own. What was begun ends
# with the script, and the folder with it.
pids=()

# Begins a command, in a process group of its own, to be ended with what it started.
begin() {
    "$@" </dev/null &
    pids+=($!)
}

# Waits for all of them; the status of the last that failed.
wait_for_all() {
    local pid status=0
    for pid in "${pids[@]}"; do
        wait "$pid" || status=$?
    done
    pids=()
    return $status
}

end_all() {
    local pid
    for pid in "${pids[@]}"; do kill -- "-$pid" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap end_all EXIT
trap '"$here/lab" stop; exit 130' INT TERM     # what runs in a lab does not end with its ssh
set -m
