//! Parameters hold within their limits.

use proptest::prelude::*;

use super::*;
use crate::harness::seeded;

proptest! {
    #![proptest_config(seeded(2_000))]

    #[test]
    fn chosen_parameters_hold_the_object(
        object_bytes in prop_oneof![0..1_u64 << 18, 0..1_u64 << 36],
        needed in 1..=SLICES_TOTAL_MAX,
        spare in 0..=SLICES_TOTAL_MAX,
    ) {
        let total = needed.saturating_add(spare).min(SLICES_TOTAL_MAX);
        let code = CodeParameters::for_object(object_bytes, needed, total)?;
        let blocks = u64::from(code.blocks_count(object_bytes)?);
        let capacity = blocks * code.block_bytes() as u64;
        prop_assert!(capacity >= object_bytes);
        // One symbol a slot of rounding, and one step a symbol, for each block.
        let symbols = u64::from(code.source_symbols());
        let slack = u64::from(needed) * u64::from(code.symbol_bytes())
            + symbols * u64::from(SYMBOL_BYTES_STEP)
            + 4 * u64::from(SYMBOL_BYTES_MIN);
        prop_assert!(capacity - object_bytes <= blocks * slack, "{code:?} {object_bytes}");
    }

    #[test]
    fn accepted_parameters_are_within_every_limit(
        needed: u8,
        total: u8,
        symbols in prop_oneof![0..140_u16, any::<u16>()],
        symbol_bytes in prop_oneof![(0..300_u16).prop_map(|step| step * 64), any::<u16>()],
    ) {
        if let Ok(code) = CodeParameters::new(needed, total, symbols, symbol_bytes) {
            let k = u32::from(needed) * u32::from(symbols) - 3;
            prop_assert_eq!(u32::from(code.source_symbols()), k);
            prop_assert!(needed >= 1 && needed <= total && total <= 64);
            prop_assert!((1..=128).contains(&k));
            prop_assert!((1024..=16_384).contains(&symbol_bytes) && symbol_bytes % 64 == 0);
            prop_assert!(code.run_bytes() <= RUN_BYTES_MAX);
            prop_assert!(code.block_bytes() <= BLOCK_BYTES_MAX);
        }
    }
}

#[test]
fn refusals_name_the_limit() {
    let refusals = [
        (CodeParameters::new(0, 5, 4, 1024), CodeError::NoSlices),
        (
            CodeParameters::new(3, 2, 4, 1024),
            CodeError::TooFewSlices {
                needed: 3,
                total: 2,
            },
        ),
        (
            CodeParameters::new(3, 65, 4, 1024),
            CodeError::TooManySlices { total: 65 },
        ),
        (
            CodeParameters::new(3, 5, 1, 1024),
            CodeError::SourceSymbols {
                needed: 3,
                symbols_per_slice: 1,
            },
        ),
        (
            CodeParameters::new(3, 5, u16::MAX, 1024),
            CodeError::SourceSymbols {
                needed: 3,
                symbols_per_slice: u16::MAX,
            },
        ),
        (
            CodeParameters::new(3, 5, 4, 960),
            CodeError::SymbolBytes { symbol_bytes: 960 },
        ),
        (
            CodeParameters::new(3, 5, 4, 1025),
            CodeError::SymbolBytes { symbol_bytes: 1025 },
        ),
        (
            CodeParameters::new(3, 5, 4, 16_448),
            CodeError::SymbolBytes {
                symbol_bytes: 16_448,
            },
        ),
    ];
    for (result, error) in refusals {
        assert_eq!(result, Err(error));
    }
}

#[test]
fn large_objects_get_large_blocks_and_tiny_ones_small_symbols() {
    let large = CodeParameters::for_object(1 << 30, 4, 10).expect("fits");
    // Blocks share the object evenly, so symbols come out a step below their maximum.
    assert!(
        large.source_symbols() == 125 && large.symbol_bytes() >= 16_320,
        "{large:?}"
    );
    for needed in 1..=SLICES_TOTAL_MAX {
        let tiny = CodeParameters::for_object(1, needed, needed).expect("fits");
        let stored = usize::from(needed) * tiny.run_bytes();
        assert!(
            stored <= 64 * 1024 && tiny.symbol_bytes() == 1024,
            "{tiny:?}"
        );
    }
}

#[test]
fn objects_above_the_limit_are_refused() {
    let object_bytes = OBJECT_BYTES_MAX + 1;
    assert_eq!(
        CodeParameters::for_object(object_bytes, 1, 1),
        Err(CodeError::ObjectTooLarge { object_bytes })
    );
    assert!(CodeParameters::for_object(OBJECT_BYTES_MAX, 1, 1).is_ok());
    let object_bytes = u64::MAX;
    assert_eq!(
        CodeParameters::for_object(object_bytes, 7, 9),
        Err(CodeError::ObjectTooLarge { object_bytes })
    );
}
