//! Python's os, fcntl and open, and the sequence of the filelock package.

use libc::{O_CREAT, O_WRONLY, SIGKILL};

use crate::support::{Mount, Said};

#[test]
fn fcntl_flock_and_lockf_take_and_exclude() {
    let mount = Mount::new();
    let script = "import fcntl, os
L, F = os.environ['L'], os.environ['F']
def refused(call, *args):
    try: call(*args)
    except BlockingIOError: return True
    return False
NB = fcntl.LOCK_EX | fcntl.LOCK_NB
a = open(F + '/x.lock', 'w'); b = open(L + '/x.lock', 'a+')
fcntl.flock(a, NB)
assert refused(fcntl.flock, b, NB) and refused(fcntl.lockf, b, NB)
fcntl.flock(a, fcntl.LOCK_UN)
fcntl.lockf(b, NB, 10, 0)
assert refused(fcntl.flock, a, NB)
child = os.fork()
if child == 0:
    c = open(L + '/x.lock', 'r+')
    os._exit(0 if refused(fcntl.lockf, c, NB, 10, 5) and not refused(fcntl.lockf, c, NB, 10, 10) else 1)
assert os.waitpid(child, 0)[1] == 0
b.close()
fcntl.flock(a, NB)
a.close()
assert not os.path.exists(L + '/x.lock')
";
    mount.python(script).ok();
}

#[test]
fn os_open_has_the_errnos_of_the_contract() {
    let mount = Mount::new();
    let script = "import errno, os
x = os.environ['L'] + '/x.lock'
def answer(call, *args):
    try: call(*args)
    except OSError as error: return errno.errorcode[error.errno]
    return 'fine'
assert answer(os.open, x, os.O_RDONLY) == 'ENOENT'
fd = os.open(x, os.O_WRONLY | os.O_CREAT)
assert answer(os.open, x, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK) == 'EAGAIN'
assert answer(os.open, x, os.O_RDWR | os.O_CREAT | os.O_EXCL) == 'EEXIST'
assert answer(open, x, 'x') == 'EEXIST'
assert answer(os.mkdir, x) == 'EEXIST'
assert answer(os.symlink, '0', x) == 'EEXIST'
os.close(fd)
with open(x, 'x') as f:
    assert os.path.exists(x)
    f.write(f'{os.getpid()}:python')
assert open(x).read().startswith(f'{os.getpid()}:python')
os.remove(x)
assert not os.path.exists(x)
os.mkdir(x); assert os.path.isdir(x); os.rmdir(x)
";
    mount.python(script).ok();
}

#[test]
fn a_write_that_is_refused_raises() {
    let mount = Mount::new();
    let script = "import errno, os
x = os.environ['L'] + '/x.lock'
try:
    with open(x, 'w') as f: f.write('hello')
    raise SystemExit('nothing was raised')
except OSError as error:
    assert error.errno == errno.EINVAL, error
assert not os.path.exists(x)
";
    mount.python(script).ok();
}

/// The calls of filelock's UnixFileLock: open, then flock, and never unlink.
const FILELOCK: &str = "import errno, fcntl, os, sys, time
class FileLock:
    def __init__(self, path): self.path = path
    def acquire(self):
        while True:
            flags = os.O_RDWR | os.O_TRUNC | os.O_CREAT
            try: fd = os.open(self.path, flags | os.O_EXCL, 0o644)
            except FileExistsError: fd = os.open(self.path, flags, 0o644)
            try: os.fchmod(fd, 0o644)
            except PermissionError: pass
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.fd = fd
                return
            except BlockingIOError:
                os.close(fd)
                time.sleep(0.001)
    def release(self):
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        os.close(self.fd)
";

#[test]
fn the_sequence_of_filelock_excludes_and_leaves_nothing() {
    let mount = Mount::new();
    let counter = mount.dir().join("counter");
    std::fs::write(&counter, "0").unwrap();
    let script = format!(
        "{FILELOCK}
lock = FileLock(os.environ['L'] + '/x.lock')
counter = os.environ['T'] + '/counter'
for i in range(100):
    lock.acquire()
    n = int(open(counter).read())
    with open(counter, 'w') as f: f.write(str(n + 1))
    lock.release()
"
    );
    let contenders: Vec<_> = (0..6).map(|_| mount.spawn_python(&script)).collect();
    for contender in contenders {
        contender.finish().ok();
    }
    assert_eq!(std::fs::read_to_string(&counter).unwrap(), "600");
    assert!(!mount.taken("x.lock"));
}

#[test]
fn a_killed_holder_of_filelock_leaves_nothing() {
    let mount = Mount::new();
    let script = format!(
        "{FILELOCK}
FileLock(os.environ['L'] + '/x.lock').acquire()
print('locked', flush=True)
time.sleep(60)
"
    );
    let holder = mount.spawn_python(&script);
    holder.wait_for_line("locked");
    holder.signal(SIGKILL);
    mount.wait_until_free("x.lock");
}

#[test]
fn a_blocking_call_is_ended_by_a_signal_handler() {
    let mount = Mount::new();
    let mut holder = mount.client();
    holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let script = "import fcntl, os, signal
class Alarm(Exception): pass
def ring(*_): raise Alarm
signal.signal(signal.SIGALRM, ring)
L, F = os.environ['L'], os.environ['F']
f = open(F + '/x.lock')
for call in (lambda: fcntl.flock(f, fcntl.LOCK_EX), lambda: os.open(L + '/x.lock', os.O_WRONLY)):
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        call()
        raise SystemExit('it was granted')
    except Alarm: print('ended')
";
    assert_eq!(mount.python(script).ok().text(), "ended\nended");
}
