//! The engine against a naive arbiter: random operations, and after each one both must agree on who
//! holds, who waits, who was granted and who was refused; the engine's own invariants must hold too.

#[path = "model/harness.rs"]
mod harness;
#[path = "model/ops.rs"]
mod ops;
#[path = "model/reference.rs"]
mod reference;
#[path = "model/regressions.rs"]
mod regressions;

use proptest::prelude::*;

use harness::Harness;

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_agrees_with_the_reference_after_every_operation(
        ops in proptest::collection::vec(ops::op(), 1..=120)
    ) {
        let mut harness = Harness::new();
        for op in &ops {
            harness.step(op);
        }
    }
}
