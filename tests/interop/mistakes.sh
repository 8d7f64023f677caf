#!/usr/bin/env bash
# What an administrator gets wrong, and what may go wrong for them: it is refused or told, and nothing is lost silently.
# shellcheck source=tests/interop/stack.sh
. "$(dirname "$0")/stack.sh"

prepare() {
    need python3 python3
    need_binaries
}

enter_sandbox prepare

output_that_cannot_be_written() {
    local verb
    for verb in 'policy export' 'key export' 'audit' 'user list' 'completion bash'; do
        # shellcheck disable=SC2086  # the words of a verb
        says "authctl $verb onto a full disk" 1 'could not be written: No space left' to /dev/full ctl $verb
    done
    says "a secret that is lost is told" 1 'could not be written' to /dev/full ctl robot create lost
    # shellcheck disable=SC2016  # for the other shell
    says "a reader that goes away is no failure" 0 '^_authctl' \
        bash -o pipefail -c '"$0" completion bash | head -n 1' "$bin/authctl"
}

# to FILE COMMAND...
to() {
    local file=$1
    shift
    "$@" >"$file"
}

times() {
    local wrong
    for wrong in 90 tomorrow 0d -1d 2020-01-01 9999999d; do
        says "--expires $wrong" 2 'no time to come: write how long, such as 90d' \
            ctl grant andrew a:pull --expires "$wrong"
    done
    says "--expires with a day" 0 ' 2100-01-01T00:00:00Z$' ctl grant andrew b:pull --expires 2100-01-01
    says "--since yesterday" 2 'no time: write an age such as 1h' ctl audit --since yesterday
}

names() {
    says "a subject that nobody is" 0 'there is no user lnea yet' ctl grants lnea
    says "one whom no rule is for" 0 'no rule is for lnea; to give a grant: authctl grant lnea' ctl grants lnea
    says "tokens of nobody" 0 'there is no user lnea: tokens of one who is gone end all the same' ctl revoke-tokens lnea
    says "a grant with the registry's own name" 0 'no repository.s begins with: write team/app$' \
        ctl grant andrew "$host/team/app:pull"
    says "a group with a name of its own meaning" 2 'choose another name' ctl group add everyone andrew
    says "one member" 0 '^andrew is in group:devs' ctl group add devs andrew
    # shellcheck disable=SC2016  # a pattern of Berth's
    says "a name where nobody has one" 0 'never holds for them' ctl grant anonymous '${user}/**:pull'
}

places() {
    mkdir --parents "$scratch/mine/files-mine"
    says "a backup among other files" 1 'neither empty nor a backup of auth-server' ctl backup "$scratch/mine"
    [[ -d $scratch/mine/files-mine ]] || fail "the backup removed what is not its own"
    says "a backup onto the data" 1 'neither empty nor a backup of auth-server' ctl backup "$data"
    mv "$certs/ca.key" "$scratch/ca.key"
    says "a certificate whose CA's key is away" 1 'the key of the CA that is to sign: put it back' ctl cert renew
    mv "$scratch/ca.key" "$certs/ca.key"
    says "another name of the certificate alone" 0 'authctl init --host LIST changes both' \
        ctl cert renew --host other.lan --dry-run
    says "init with another address to listen on" 0 'still listens on .*: write 127.0.0.1:7000' \
        "$bin/authctl" init --data "$data" --certs "$certs" --no-user --listen 127.0.0.1:7000 --dry-run
}

servers() {
    local server
    for server in auth registry; do
        says "health of $server-server where none runs" 1 'is the server running\?' "$bin/$server-server" \
            --config "$data/$server.toml" health
    done
    says "a port that is none" 2 'write a port from 1 to 65535' "$bin/authctl" init --port 99999
    says "an address without a port" 1 'such as \[::\]:5000 or 127.0.0.1:5000' \
        registry_with 's/^listen = .*/listen = "5000"/'
    says "a port that is taken" 1 'ss -ltnp shows it' with_taken_port registry_with
    mv "$certs/server.key" "$scratch/server.key"
    says "a key that is not there" 1 'server.key: .*authctl init makes a certificate' registry_with ''
    mv "$scratch/server.key" "$certs/server.key"
    says "init with fewer hosts" 0 'public_urls in .*registry.toml https://other.lan:[0-9]+$' \
        "$bin/authctl" init --data "$data" --certs "$certs" --no-user --host other.lan --dry-run
}

# registry_with SED: registry-server with its settings changed.
registry_with() {
    sed "$1" "$data/registry.toml" >"$data/registry-other.toml"
    timeout 10 "$bin/registry-server" --config "$data/registry-other.toml"
}

# with_taken_port COMMAND: with a sed expression for the port that another program listens on.
with_taken_port() {
    python3 - <<'PYTHON' >"$scratch/port" &
import signal, socket
taken = socket.create_server(("127.0.0.1", 0))
print(taken.getsockname()[1], flush=True)
signal.pause()
PYTHON
    local holder=$! status=0
    until [[ -s $scratch/port ]]; do sleep 0.05; done
    "$1" "s/^listen = .*/listen = \"127.0.0.1:$(cat "$scratch/port")\"/" || status=$?
    kill "$holder"
    return "$status"
}

levels() {
    local server
    for server in auth registry; do
        sed 's/^log = .*/log = "warning"/' "$data/$server.toml" >"$data/$server-loud.toml"
        says "$server-server with a level that is none" 1 'write error, warn, info' \
            timeout 10 "$bin/$server-server" --config "$data/$server-loud.toml"
    done
}

# at_terminal INPUT VERB...: types INPUT at each question, and says how it ended and whether the terminal shows what is
# typed.
at_terminal() {
    python3 - "$@" <<'PYTHON'
import os, pty, sys, termios
typed, command = sys.argv[1].encode().decode("unicode_escape").encode(), sys.argv[2:]
child, terminal = pty.fork()
if child == 0:
    os.execv(command[0], command)
said = b""
while True:
    try:
        some = os.read(terminal, 1024)
    except OSError:
        break
    if not some:
        break
    said += some
    if some.endswith(b": "):
        os.write(terminal, typed)
    shows = bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(said.decode(), f"status {status}", "shows" if shows else "hides")
PYTHON
}

terminals() {
    says "a password typed twice" 0 'status 0' \
        at_terminal 'good enough 1\n' "$bin/authctl" --config "$data/auth.toml" user add nora
    says "Ctrl-C leaves the terminal as it was" 0 'status 130 shows' \
        at_terminal '\x03' "$bin/authctl" --config "$data/auth.toml" user passwd nora
}

# ----------------------------------------------------------------

succeeds "authctl init" init_berth
output_that_cannot_be_written
times
names
places
servers
levels
terminals
