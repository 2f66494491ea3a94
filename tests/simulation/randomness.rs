//! Where the operating system's randomness comes from: in the thread of a world, from its seed.
//!
//! The standard library's hash maps, tokio's choice between ready branches, and the ids of the index engine all begin with getrandom(2). A program's
//! own definition of that function comes before the C library's.

use std::cell::Cell;

thread_local! {
    /// The state of the generator of this thread; `None`: the system's randomness.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Makes the randomness of this thread follow from `seed`.
pub(crate) fn seed_thread(seed: u64) {
    STATE.set(Some(seed));
}

/// SplitMix64.
pub(crate) fn step(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// As getrandom(2).
///
/// # Safety
/// `buffer` must be valid for writes of `length` bytes.
#[allow(
    unsafe_code,
    unreachable_pub,
    reason = "it replaces a function of the C library, for this test program only"
)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    // A thread that ends has no state any more.
    let Ok(Some(mut state)) = STATE.try_with(Cell::get) else {
        // SAFETY: the arguments are those of the caller, who promises that they are valid.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize };
    };
    // SAFETY: the caller promises that the buffer is valid for this length.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    for part in bytes.chunks_mut(8) {
        let number = step(&mut state).to_le_bytes();
        part.copy_from_slice(&number[..part.len()]);
    }
    STATE.set(Some(state));
    length as isize
}

/// A generator for the choices of a world.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        step(&mut self.0) % end
    }

    /// True in `share` of 1,000 cases.
    pub(crate) fn in_thousand(&mut self, share: u64) -> bool {
        self.below(1000) < share
    }
}
