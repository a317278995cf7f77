//! The fixed texts of the tree.

/// `README` at the root.
pub const README: &str = "\
git-lockfs: locks are files here
================================

Run a command under a lock:
    git lockfs run -l x.lock -- COMMAND

The same from a plain shell, in this directory:
    exec 9> locks/x.lock || exit 75      take it, wait for it; held until fd 9 closes
    exec 9>&-                            release it
    { COMMAND; } 9> locks/x.lock         held for the braces
    echo $$ > locks/x.lock || exit 75    held by this shell until it exits, or: rm locks/x.lock
    mkdir locks/x.lock || exit 75        now or never; held by this shell; rmdir releases
    (set -C; : > locks/x.lock)           noclobber: now or never
    flock flock/x.lock COMMAND           flock(1), at the door for programs that open first and lock later

Look without touching:
    ls locks/                            what is taken
    cat locks/x.lock                     who holds it, since when, how many wait
    cat last-error                       why your last call was refused, and what to do
    git lockfs status                    everything at a glance

Several locks together, a priority, a wait limit, a place that survives your exit:
    exec 9<> acquire
    echo 'locks=a.lock,b.lock wait=5s priority=8 session=me op=\"git merge\"' >&9 || exit 75
    read -r grant <&9                    token=919

What surprises: a descriptor that is closed holds nothing, unless a PID was written; a background
child has a copy of the descriptor (start it with 9>&-); plain sh goes on after a failed redirection,
so guard it with || exit.

All of it: man git-lockfs, man 5 git-lockfs
";

/// `acquire`, read without a request.
pub const ACQUIRE: &str = "\
acquire: one request for several locks. Open it for reading and writing, write one line, keep the descriptor.
    exec 9<> acquire
    echo 'locks=NAME[,NAME...] mode=exclusive wait=5s priority=8 session=S op=\"git merge\" ticket=T' >&9 || exit 75
    read -r grant <&9        # token=919; later lines: wanted by=PID mode=exclusive priority=10
Keys: locks (required), shared (more of them, to be held shared), mode (exclusive, shared), wait (0, a time, forever),
priority (1 to 10), session, op, ticket.
A JSON object with the same keys is taken too. All locks are taken together or none; all go at the last close.
";

/// `control`, read.
pub const CONTROL: &str = "\
control: one verb a line, for the owner of the mount.
    break LOCK TOKEN REASON   take a lock away from the holder that has this token
    withdraw TICKET           give up a ticket's place
    release-session S         release every lock of a session
    drain                     grant nothing new: waits go on
    resume                    grant again
    reload                    read the configuration again
    flush-metrics             write buffered figures to disk
    note git_commit_validation_warning commit=ID missing=N foreign=N
                              count a commit with other files than were asked for
";
