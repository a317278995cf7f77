//! Requests as the kernel lays them out, and bytes that it never would.

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;

const UNIQUE: u64 = 0x1234;

/// A request of node 7 by thread 42 of user 1000 and group 100.
fn request(opcode: u32, unique: u64, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let header = wire::InHeader {
        len: u32::try_from(size_of::<wire::InHeader>() + body.len()).expect("a test's request is small"),
        opcode,
        unique,
        nodeid: 7,
        uid: 1000,
        gid: 100,
        pid: 42,
        total_extlen: 0,
        padding: 0,
    };
    [header.as_bytes(), &body].concat()
}

/// The call and the form that a request decodes to.
fn call(opcode: u32, parts: &[&[u8]]) -> (String, Form) {
    let bytes = request(opcode, UNIQUE, parts);
    match decode(&bytes).expect("a whole header").todo {
        Todo::Call(call, form) => (format!("{call:?}"), form),
        other => panic!("not a call: {other:?}"),
    }
}

fn here(opcode: u32, parts: &[&[u8]]) -> Here {
    let bytes = request(opcode, UNIQUE, parts);
    match decode(&bytes).expect("a whole header").todo {
        Todo::Here(here) => here,
        other => panic!("not answered here: {other:?}"),
    }
}

fn plain(call: Call<'_>) -> (String, Form) {
    (format!("{call:?}"), Form::Plain)
}

fn lk(typ: i32, start: u64, end: u64, lk_flags: u32) -> wire::LkIn {
    wire::LkIn {
        fh: 3,
        owner: 99,
        lk: wire::FileLock {
            start,
            end,
            typ,
            pid: 5,
        },
        lk_flags,
        padding: 0,
    }
}

#[test]
fn a_name_is_bytes_up_to_its_nul() {
    let bytes = request(opcode::LOOKUP, UNIQUE, &[b"a\xff b\0"]);
    let request = decode(&bytes).expect("a whole header");
    assert_eq!(request.unique, Unique(UNIQUE));
    assert_eq!(
        request.caller,
        Caller {
            tid: 42,
            uid: 1000,
            gid: 100
        }
    );
    assert!(matches!(
        request.todo,
        Todo::Call(
            Call::Lookup {
                parent: NodeId(7),
                name: b"a\xff b"
            },
            Form::Plain
        )
    ));
}

#[test]
fn a_request_that_is_sent_again_keeps_its_name() {
    let bytes = request(opcode::GETATTR, UNIQUE | wire::UNIQUE_RESEND, &[&[0; 16]]);
    let resent = decode(&bytes).expect("a whole header");
    assert_eq!((resent.unique, resent.resent), (Unique(UNIQUE), true));

    let target = UNIQUE | wire::UNIQUE_RESEND;
    let bytes = request(opcode::INTERRUPT, UNIQUE | 1, &[target.as_bytes()]);
    let Todo::Tell(Call::Interrupt { target }) = decode(&bytes).expect("a whole header").todo else {
        panic!("an interrupt is told");
    };
    assert_eq!(target, Unique(UNIQUE));
}

#[test]
fn open_flags_become_an_open_mode() {
    let open = |flags: i32| call(opcode::OPEN, &[&flags.to_ne_bytes(), &[0; 4]]);
    let mode = OpenMode {
        access: Access::Write,
        nonblock: true,
        exclusive: false,
        append: true,
        truncate: true,
    };
    assert_eq!(
        open(libc::O_WRONLY | libc::O_NONBLOCK | libc::O_APPEND | libc::O_TRUNC),
        plain(Call::Open { node: NodeId(7), mode })
    );
    let create = [
        &(libc::O_RDWR | libc::O_CREAT | libc::O_EXCL).to_ne_bytes()[..],
        &[0; 12],
    ]
    .concat();
    let mode = OpenMode {
        access: Access::Both,
        nonblock: false,
        exclusive: true,
        append: false,
        truncate: false,
    };
    assert_eq!(
        call(opcode::CREATE, &[&create, b"x.lock\0"]),
        plain(Call::Create {
            parent: NodeId(7),
            name: b"x.lock",
            mode
        })
    );
    assert_eq!(
        here(opcode::OPEN, &[&3_i32.to_ne_bytes(), &[0; 4]]),
        Here::Errno(libc::EINVAL)
    );
}

#[test]
fn flock_is_the_whole_range_and_fcntl_is_its_owners_bytes() {
    let whole = Range::WHOLE.end();
    let set = |style, mode, range, wait| {
        plain(Call::SetLock {
            node: NodeId(7),
            handle: HandleId(3),
            style,
            mode,
            range,
            wait,
        })
    };
    assert_eq!(
        call(
            opcode::SETLKW,
            &[lk(libc::F_WRLCK, 0, whole, wire::LK_FLOCK).as_bytes()]
        ),
        set(LockStyle::Flock, Some(Mode::Exclusive), Range::WHOLE, true)
    );
    let bytes = Range::new(10, 19).expect("ten bytes");
    assert_eq!(
        call(opcode::SETLK, &[lk(libc::F_RDLCK, 10, 19, 0).as_bytes()]),
        set(LockStyle::Posix(99), Some(Mode::Shared), bytes, false)
    );
    assert_eq!(
        call(opcode::SETLK, &[lk(libc::F_UNLCK, 10, 19, 0).as_bytes()]),
        set(LockStyle::Posix(99), None, bytes, false)
    );
    assert_eq!(
        call(opcode::GETLK, &[lk(libc::F_WRLCK, 10, 19, 0).as_bytes()]),
        plain(Call::GetLock {
            node: NodeId(7),
            handle: HandleId(3),
            owner: 99,
            mode: Mode::Exclusive,
            range: bytes
        })
    );
    for bad in [
        lk(7, 0, 1, 0),
        lk(-1, 0, 1, 0),
        lk(libc::F_RDLCK, 2, 1, 0),
        lk(libc::F_RDLCK, u64::MAX, u64::MAX, 0),
    ] {
        assert_eq!(here(opcode::SETLKW, &[bad.as_bytes()]), Here::Errno(libc::EINVAL));
        assert_eq!(here(opcode::GETLK, &[bad.as_bytes()]), Here::Errno(libc::EINVAL));
    }
}

#[test]
fn setattr_changes_what_it_names_and_drops_the_mode() {
    let mut set = wire::SetattrIn {
        valid: 1 | fattr::MTIME | fattr::ATIME | fattr::ATIME_NOW | fattr::FH,
        padding: 0,
        fh: 3,
        size: 5,
        lock_owner: 0,
        atime: 1,
        mtime: -2,
        ctime: 3,
        atimensec: 4,
        mtimensec: 5,
        ctimensec: 6,
        mode: 0o777,
        unused4: 0,
        uid: 1,
        gid: 2,
        unused5: 0,
    };
    let times = Change {
        mtime: Some(Stamp::At(-2, 5)),
        atime: Some(Stamp::Now),
        ..Change::default()
    };
    assert_eq!(
        call(opcode::SETATTR, &[set.as_bytes()]),
        plain(Call::SetAttr {
            node: NodeId(7),
            handle: Some(HandleId(3)),
            change: times
        })
    );
    set.valid = fattr::SIZE | fattr::UID | fattr::GID;
    let rest = Change {
        size: Some(5),
        uid: Some(1),
        gid: Some(2),
        ..Change::default()
    };
    assert_eq!(
        call(opcode::SETATTR, &[set.as_bytes()]),
        plain(Call::SetAttr {
            node: NodeId(7),
            handle: None,
            change: rest
        })
    );
}

#[test]
fn two_names_are_told_apart() {
    assert_eq!(
        call(opcode::SYMLINK, &[b"x.lock\0", b"4242:me\0"]),
        plain(Call::Symlink {
            parent: NodeId(7),
            name: b"x.lock",
            target: b"4242:me"
        })
    );
    let rename = plain(Call::Rename {
        parent: NodeId(7),
        name: b"a",
        new_parent: NodeId(8),
        new_name: b"b",
    });
    assert_eq!(call(opcode::RENAME, &[&8_u64.to_ne_bytes(), b"a\0b\0"]), rename);
    let rename2 = |flags: u32| [&8_u64.to_ne_bytes()[..], &flags.to_ne_bytes(), &[0; 4], b"a\0b\0"].concat();
    assert_eq!(call(opcode::RENAME2, &[&rename2(libc::RENAME_NOREPLACE)]), rename);
    for flags in [libc::RENAME_EXCHANGE, libc::RENAME_WHITEOUT, 1 << 31] {
        assert_eq!(here(opcode::RENAME2, &[&rename2(flags)]), Here::Errno(libc::EINVAL));
    }
    assert_eq!(
        call(opcode::LINK, &[&9_u64.to_ne_bytes(), b"x.lock\0"]),
        plain(Call::Link {
            node: NodeId(9),
            parent: NodeId(7),
            name: b"x.lock"
        })
    );
}

#[test]
fn a_reply_whose_form_depends_on_the_request_is_never_one_that_may_come_later() {
    let read = [&3_u64.to_ne_bytes()[..], &[0; 8], &512_u32.to_ne_bytes(), &[0; 20]].concat();
    assert_eq!(call(opcode::READ, &[&read]).1, Form::Plain);
    assert_eq!(call(opcode::READDIR, &[&read]).1, Form::Listing(512));
    assert_eq!(call(opcode::OPENDIR, &[&[0; 8]]).1, Form::Directory);
    let value = [&64_u32.to_ne_bytes()[..], &[0; 4]].concat();
    let get = call(opcode::GETXATTR, &[&value, b"user.lockfs.token\0"]);
    assert_eq!(get.1, Form::Plain, "who holds a lock may have to be found out first");
    assert!(get.0.contains("room: 64"), "{}", get.0);
    assert_eq!(call(opcode::LISTXATTR, &[&value]).1, Form::Plain);
}

#[test]
fn a_write_carries_its_data() {
    let write = [
        &3_u64.to_ne_bytes()[..],
        &9_u64.to_ne_bytes(),
        &4_u32.to_ne_bytes(),
        &[0; 20],
    ]
    .concat();
    assert_eq!(
        call(opcode::WRITE, &[&write, b"4242"]),
        plain(Call::Write {
            handle: HandleId(3),
            offset: 9,
            data: b"4242"
        })
    );
    assert_eq!(
        here(opcode::WRITE, &[&write, b"424"]),
        Here::Errno(libc::EIO),
        "data are missing"
    );
}

#[test]
fn poll_asks_for_a_notification_only_when_it_says_so() {
    let poll = |flags: u32| {
        let bytes = [
            &3_u64.to_ne_bytes()[..],
            &77_u64.to_ne_bytes(),
            &flags.to_ne_bytes(),
            &5_u32.to_ne_bytes(),
        ]
        .concat();
        call(opcode::POLL, &[&bytes])
    };
    let expected = |notify| {
        plain(Call::Poll {
            handle: HandleId(3),
            notify,
            events: 5,
        })
    };
    assert_eq!(poll(wire::POLL_SCHEDULE_NOTIFY), expected(Some(77)));
    assert_eq!(poll(0), expected(None));
}

#[test]
fn a_batch_forgets_each_node_and_no_more_than_there_are() {
    let nodes: Vec<u8> = [(11_u64, 1_u64), (12, 5)]
        .iter()
        .flat_map(|(node, count)| [node.to_ne_bytes(), count.to_ne_bytes()].concat())
        .collect();
    for (count, expected) in [(2_u32, 2), (1, 1), (u32::MAX, 2)] {
        let bytes = request(opcode::BATCH_FORGET, UNIQUE, &[&count.to_ne_bytes(), &[0; 4], &nodes]);
        let Todo::Forgets(forgets) = decode(&bytes).expect("a whole header").todo else {
            panic!("a batch of forgets");
        };
        assert_eq!(forgets.count(), expected);
    }
}

#[test]
fn what_no_lock_has_is_answered_here() {
    let expected = [
        (opcode::MKNOD, libc::EPERM),
        (opcode::IOCTL, libc::ENOTTY),
        (opcode::FALLOCATE, libc::EOPNOTSUPP),
        (opcode::ACCESS, libc::ENOSYS),
        (opcode::LSEEK, libc::ENOSYS),
        (opcode::STATX, libc::ENOSYS),
        (opcode::COPY_FILE_RANGE, libc::ENOSYS),
        (opcode::FSYNC, libc::ENOSYS),
        (opcode::FSYNCDIR, libc::ENOSYS),
        (4096, libc::ENOSYS),
    ];
    for (opcode, errno) in expected {
        assert_eq!(
            here(opcode, &[&[0; 64]]),
            Here::Errno(errno),
            "{}",
            opcode::name(opcode)
        );
    }
    assert_eq!(here(opcode::STATFS, &[]), Here::Statfs);
    assert_eq!(
        here(opcode::SETXATTR, &[&[0; 8], b"user.lockfs.token\0"]),
        Here::Errno(libc::EPERM)
    );
    assert_eq!(
        here(opcode::SETXATTR, &[&[0; 8], b"system.posix_acl_access\0"]),
        Here::Errno(libc::EOPNOTSUPP)
    );
}

#[test]
fn a_broken_request_is_answered_unless_the_kernel_wants_no_answer() {
    assert!(decode(&[0; 39]).is_none(), "not even a header");
    assert_eq!(here(opcode::LOOKUP, &[b"no end"]), Here::Errno(libc::EIO));
    let mut cut = request(opcode::GETATTR, UNIQUE, &[&[0; 16]]);
    cut.pop();
    assert!(matches!(
        decode(&cut).expect("a whole header").todo,
        Todo::Here(Here::Errno(libc::EIO))
    ));
    for opcode in [opcode::FORGET, opcode::BATCH_FORGET, opcode::INTERRUPT] {
        let bytes = request(opcode, UNIQUE, &[]);
        assert!(matches!(decode(&bytes).expect("a whole header").todo, Todo::Nothing));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        exhaust(&bytes);
    }

    #[test]
    fn no_body_of_a_known_request_makes_it_panic(
        opcode in 0_u32..60,
        unique in any::<u64>(),
        body in proptest::collection::vec(any::<u8>(), 0..160),
    ) {
        exhaust(&request(opcode, unique, &[&body]));
    }
}

fn exhaust(bytes: &[u8]) {
    if let Some(Todo::Forgets(forgets)) = decode(bytes).map(|request| request.todo) {
        assert!(forgets.count() * size_of::<wire::ForgetOne>() <= bytes.len());
    }
}
