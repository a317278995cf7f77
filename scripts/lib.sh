# shellcheck shell=bash
# What the scripts share: where the project is, and how what is missing gets installed.
# Sourced by bash; asks nothing, and says what it does before it does it.

EX_UNAVAILABLE=69 # sysexits.h: what the program itself answers when it cannot mount

project=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
me=$(basename -- "$0")

say() { printf '%s: %s\n' "$me" "$*" >&2; }
die() { # CODE SENTENCE
    local code=$1
    shift
    say "$*"
    exit "$code"
}

has() { command -v -- "$1" >/dev/null 2>&1; }

can_be_root() { [ "$(id -u)" -eq 0 ] || { has sudo && sudo -n true 2>/dev/null; }; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n -- "$@"; fi
}

twice() { "$@" || { say "once more: $*" && "$@"; }; } # mirrors have bad moments

# Installs the packages of the commands that are missing; each argument is COMMAND:PACKAGE[:PACKAGE]...
need_commands() {
    local pair missing=() packages=()
    for pair in "$@"; do
        has "${pair%%:*}" && continue
        missing+=("${pair%%:*}")
        IFS=: read -ra names <<<"${pair#*:}"
        packages+=("${names[@]}")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    has apt-get || die 1 "missing here: ${missing[*]}; install them (Debian's packages: ${packages[*]})"
    can_be_root || die 1 "missing here: ${missing[*]}; as root: apt-get install ${packages[*]}"
    say "installing ${packages[*]} (for ${missing[*]})"
    twice as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update >&2
    twice as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y --no-install-recommends install "${packages[@]}" >&2
}

need_rust() {
    has cargo || [ ! -r "${CARGO_HOME:-$HOME/.cargo}/env" ] || . "${CARGO_HOME:-$HOME/.cargo}/env"
    has cargo || die 1 "a Rust toolchain is missing: see https://rustup.rs, or run
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal"
}

need_rust_component() { # the cargo subcommand, the component
    cargo "$1" --version >/dev/null 2>&1 && return
    has rustup || die 1 "cargo $1 is missing; your toolchain calls it $2"
    say "adding $2 to the Rust toolchain"
    twice rustup component add "$2" >&2
}

# What every build needs; SQLite is compiled from source, so a C compiler is part of it.
need_build() {
    need_commands git:git cc:gcc:libc6-dev
    need_rust
}

# Builds the programs as they are used. They start as git's hook and as git itself, often and for next to nothing, and
# then finding their libraries would be most of what they do; so these are linked in where the system has them for that.
# Nor can they be moved: that would cost a page fault for each page that has an address in it.
build_release() {
    local program static=()
    [ ! -e "$(cc -print-file-name=libc.a)" ] ||
        static=(-- -C target-feature=+crt-static -C relocation-model=static)
    for program in git-lockfs git-lockfs-shim; do
        (cd -- "$project" && cargo rustc --release --locked --bin "$program" "${static[@]}")
    done
}

has_fuse_device() { [ "$(stat -c %t:%T /dev/fuse 2>/dev/null)" = a:e5 ]; } # 10:229; some containers mask it

# Opens /dev/fuse to ordinary users if it is not: 0666 is what distributions set, containers often forget.
need_fuse_device() {
    has_fuse_device || ! has modprobe || ! can_be_root || as_root modprobe fuse 2>/dev/null || true
    has_fuse_device || die "$EX_UNAVAILABLE" "there is no /dev/fuse here: run \`modprobe fuse\` as root, or start \
the container with --device /dev/fuse --cap-add SYS_ADMIN"
    if [ "$(id -u)" -eq 0 ] || { [ -r /dev/fuse ] && [ -w /dev/fuse ]; }; then return; fi
    can_be_root || die "$EX_UNAVAILABLE" "/dev/fuse is closed to $(id -un): run \`chmod 0666 /dev/fuse\` as root"
    open_fuse_device
}

open_fuse_device() {
    [ "$(stat -c %a /dev/fuse)" != 666 ] || return 0
    say "chmod 0666 /dev/fuse (its usual mode), so that ordinary users can mount"
    as_root chmod 0666 /dev/fuse
}

# All that the tests start. shlock(1) is left out: Debian has it only inside a news server (inn2); the tests
# make its sequence of calls themselves.
need_tests() {
    need_build
    # The system's own commands count, not those of a user's version manager: the tests clear the environment.
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin need_commands \
        fusermount3:fuse3 flock:util-linux setpriv:util-linux unshare:util-linux timeout:coreutils ps:procps \
        python3:python3 bwrap:bubblewrap dotlockfile:liblockfile-bin lockfile:procmail strace:strace \
        getfattr:attr busybox:busybox dash:dash zsh:zsh fish:fish man:man-db script:bsdutils promtool:prometheus \
        tmux:tmux chromium:chromium chromedriver:chromium-driver
    need_fuse_device
    need_test_user
}

# The ordinary user of the tests that go through fusermount3: ourselves, or as root a user made for it.
need_test_user() {
    if [ "$(id -u)" -ne 0 ]; then
        LOCKFS_TEST_USER=$(id -un)
    else
        LOCKFS_TEST_USER=${LOCKFS_TEST_USER:-lockfs-test}
        open_fuse_device
        id -u -- "$LOCKFS_TEST_USER" >/dev/null 2>&1 || {
            say "making the user $LOCKFS_TEST_USER, who mounts as an ordinary user in the tests"
            useradd --system --create-home --shell /bin/sh -- "$LOCKFS_TEST_USER"
        }
    fi
    export LOCKFS_TEST_USER
}

# Where cargo puts what it builds, whatever was configured.
target_directory() {
    (cd -- "$project" && cargo metadata --format-version 1 --no-deps --locked) |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}
