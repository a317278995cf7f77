//! "a stress of 32 processes mixing all dialects on 4 names with every critical section checked for overlap"

use std::time::Duration;

use crate::support::{Client, Mount, Op};

const PROCESSES: u64 = 32;
const SECTIONS: u32 = 60;
const ALL_MAX: Duration = Duration::from_secs(90);

fn mix(seed_base: u64, names: &[&str]) {
    let mount = Mount::new();
    let markers = mount.dir().join("markers");
    std::fs::create_dir(&markers).unwrap();
    let mut clients: Vec<Client> = (0..PROCESSES).map(|_| mount.client()).collect();
    for (seed, client) in (seed_base..).zip(&mut clients) {
        client.begin(Op::Mix {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            markers: markers.clone(),
            seed,
            times: SECTIONS,
        });
    }
    for (seed, client) in (seed_base..).zip(&mut clients) {
        let done = client.finish_within(ALL_MAX);
        assert_eq!(done, Ok(i64::from(SECTIONS)), "seed {seed}; EADDRINUSE is an overlap");
    }
    assert_eq!(mount.listed(), [""; 0], "nothing is left behind");
    assert_eq!(std::fs::read_dir(&markers).unwrap().count(), 0);
}

#[test]
fn no_two_are_in_a_section_when_32_processes_mix_all_dialects_on_4_names() {
    mix(1, &["a.lock", "b.lock", "c.lock", "d.lock"]);
}

#[test]
fn no_two_are_in_a_section_when_all_want_the_same_name() {
    mix(1_000, &["a.lock"]);
}
