//! Random tables, options, constraints and schedules: replicas that saw the same changes show the
//! same rows, keep every constraint and have lost nothing.
//!
//! What was lost is told by an account that knows nothing of clocks or merges: every row carries a
//! token that no other row ever had. A token is owed from the statement after which it is seen in
//! the table until a statement after which it is not; what happens between statements (folds,
//! imports) must neither add nor take one. In the end the tokens in the tables and among the parked
//! rows are those that are owed.

mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestCaseError};

use world::{Case, ROUNDS, World};

/// How many rounds both tests together have where nothing is said: `SYNCLINE_CASES` says more.
const CASES: usize = 20_000;

fn config() -> Config {
    // Every day the same rounds, so that a failure is the change's own; others where asked for.
    let (cases, rng_seed) = match std::env::var("SYNCLINE_CASES") {
        Ok(cases) => {
            let cases = cases.parse().expect("SYNCLINE_CASES is a number");
            (cases, RngSeed::Random)
        }
        Err(_) => (CASES, RngSeed::Fixed(1)),
    };
    let worlds = cases.div_ceil(2 * ROUNDS);
    Config {
        cases: worlds.try_into().expect("SYNCLINE_CASES is less than 2^32"),
        rng_seed,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..Config::default()
    }
}

fn play(case: &Case) -> Result<(), TestCaseError> {
    let mut world = World::new(case);
    for round in &case.rounds {
        for step in round {
            world.take(step);
        }
        world.meet();
        world.check()?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_is_broken_or_lost_where_sqlite_enforces_foreign_keys(case in Case::any(true)) {
        play(&case)?;
    }

    #[test]
    fn nothing_is_broken_or_lost_where_foreign_keys_are_off(case in Case::any(false)) {
        play(&case)?;
    }
}
