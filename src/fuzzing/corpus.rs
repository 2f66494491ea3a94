//! The inputs of one target: mutations of inputs that it accepted before.

use super::targets::FuzzTarget;

/// Inputs that are kept for mutation.
const KEPT: usize = 256;
/// Bytes of the longest input.
const LEN_MAX: usize = 4096;
/// Mutations of one input.
const MUTATIONS: usize = 4;
/// One of so many inputs is made of random bytes alone.
const FRESH: u64 = 16;

/// A target with its inputs, and the random numbers that make the next ones.
#[derive(Debug)]
pub struct Fuzzer<'a> {
    target: &'a FuzzTarget,
    /// State of the generator (splitmix64).
    state: u64,
    kept: Vec<Vec<u8>>,
    accepted: u64,
    digest: u32,
}

impl<'a> Fuzzer<'a> {
    /// Begins with the seeds of `target`. Equal numbers `seed` give equal inputs.
    #[must_use]
    pub fn new(target: &'a FuzzTarget, seed: u64) -> Self {
        Self {
            target,
            state: seed,
            kept: target.seeds.iter().map(|seed| seed.to_vec()).collect(),
            accepted: 0,
            digest: 0,
        }
    }

    /// Runs the target with so many inputs.
    pub fn run(&mut self, executions: u64) {
        for _ in 0..executions {
            let input = self.input();
            self.digest = crc32c::crc32c_append(self.digest, &input);
            if (self.target.run)(&input) {
                self.accepted += 1;
                self.keep(input);
            }
        }
    }

    /// Returns how many inputs the target has accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Returns a checksum of all inputs.
    #[must_use]
    pub fn digest(&self) -> u32 {
        self.digest
    }

    fn keep(&mut self, input: Vec<u8>) {
        if self.kept.len() < KEPT {
            self.kept.push(input);
            return;
        }
        let at = self.below(KEPT);
        self.kept[at] = input;
    }

    fn input(&mut self) -> Vec<u8> {
        let mut input = match self.next() % FRESH {
            0 => self.bytes(64),
            _ if self.kept.is_empty() => self.bytes(64),
            _ => {
                let at = self.below(self.kept.len());
                self.kept[at].clone()
            }
        };
        for _ in 0..self.below(MUTATIONS) + 1 {
            self.mutate(&mut input);
        }
        input.truncate(LEN_MAX);
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        match (self.next() % 8, input.get(at).copied()) {
            (0, Some(byte)) => input[at] = byte ^ (1 << self.below(8)),
            (1, Some(_)) => input[at] = self.next() as u8,
            // Numbers at their limits: lengths, counts and offsets.
            (2, Some(_)) => input[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            (3, _) => {
                let ends = [u64::MAX, u64::MAX / 2 + 1, 1 << 32, 0];
                let mut number = [0x80; 10];
                for (place, byte) in number.iter_mut().enumerate() {
                    *byte |= (ends[at % ends.len()] >> (7 * place.min(9))) as u8 & 0x7f;
                }
                number[9] &= 1;
                input.splice(at..at, number);
            }
            (4, _) => {
                let bytes = self.bytes(8);
                input.splice(at..at, bytes);
            }
            (5, Some(_)) => {
                let end = (at + 1 + self.below(8)).min(input.len());
                input.drain(at..end);
            }
            (6, _) => input.truncate(at),
            (_, _) if !self.kept.is_empty() => {
                let other = self.below(self.kept.len());
                let from = self.below(self.kept[other].len() + 1);
                let part = self.kept[other][from..].to_vec();
                input.truncate(at);
                input.extend(part);
            }
            (_, _) => input.push(self.next() as u8),
        }
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let len = self.below(most + 1);
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
