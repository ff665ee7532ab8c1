//! Hostile input: seeds with bytes turned, taken out, doubled and put in, the same for the same
//! number each time.

use std::time::{Duration, Instant};

use serde_json::Value;

/// The seconds that each kind of input is tried for; a fixed number of inputs where it is not set.
const SECONDS: &str = "CUTOVER_FUZZ_SECONDS";

/// The number of the first input, so that another run tries others; 0 where it is not set.
const FIRST: &str = "CUTOVER_FUZZ_FIRST";

/// Far longer than any input takes, on a busy machine and without optimisation.
const LONGEST: Duration = Duration::from_secs(20);

/// Pieces that mean something to one of the readers.
const PIECES: [&[u8]; 30] = [
    b"${",
    b"%{",
    b"%{ for x in ",
    b"%{ endfor }",
    b"<<EOT\n",
    b"<<-EOT\n",
    b"\nEOT\n",
    b"}",
    b"{",
    b"[",
    b"]",
    b"(",
    b")",
    b"\"",
    b"\\",
    b"\0",
    b"\xff",
    b"\xe2\x80\xa8",
    b"...",
    b"each.value",
    b"for x in [1] : x",
    b"99999999999999999999",
    b"-1",
    b"1e308",
    b"null",
    b"/*",
    b"=",
    b"::",
    b"~}",
    b"\n",
];

/// A sequence of numbers that looks random and is not (SplitMix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below a bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("it is below a usize")
    }
}

/// A seed with one to eight changes.
pub(crate) fn mutated(seed: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(8) {
        let at = numbers.below(bytes.len() + 1);
        let end = (at + 1 + numbers.below(24)).min(bytes.len());
        match numbers.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            1 => drop(bytes.drain(at.min(end)..end)),
            2 => {
                let part = bytes[at.min(end)..end].to_vec();
                bytes.splice(at..at, part);
            }
            3 => bytes.truncate(at),
            4 => {
                let from = numbers.below(other.len() + 1);
                let part = &other[from..(from + numbers.below(64)).min(other.len())];
                bytes.splice(at..at, part.iter().copied());
            }
            _ => drop(bytes.splice(at..at, PIECES[numbers.below(PIECES.len())].iter().copied())),
        }
    }
    bytes
}

/// A document with one to three of its values replaced, or taken out.
pub(crate) fn mutated_json(seed: &Value, numbers: &mut Numbers) -> Value {
    let mut document = seed.clone();
    for _ in 0..=numbers.below(3) {
        let mut pointers = Vec::new();
        collect(&document, String::new(), &mut pointers);
        let pointer = &pointers[numbers.below(pointers.len())];
        if numbers.below(4) == 0
            && let Some((parent, key)) = pointer.rsplit_once('/')
            && let Some(Value::Object(members)) = document.pointer_mut(parent)
        {
            members.remove(&key.replace("~1", "/").replace("~0", "~"));
        } else if let Some(value) = document.pointer_mut(pointer) {
            *value = match numbers.below(9) {
                0 => Value::Null,
                1 => Value::from(-1),
                2 => Value::from(u64::MAX),
                3 => Value::from(1e308),
                4 => Value::from(""),
                5 => Value::from("\u{0}\u{202e}x".repeat(200)),
                6 => Value::Array(vec![value.clone(), value.clone()]),
                7 => Value::Object(serde_json::Map::new()),
                _ => Value::from(true),
            };
        }
    }
    document
}

fn collect(value: &Value, pointer: String, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(at, item)| collect(item, format!("{pointer}/{at}"), found));
        }
        Value::Object(members) => members.iter().for_each(|(name, member)| {
            collect(
                member,
                format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")),
                found,
            );
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    found.push(pointer);
}

/// The numbers of the inputs to try: `count` of them, or as many as fit into the time that is asked
/// for.
pub(crate) fn rounds(count: u64) -> impl Iterator<Item = u64> {
    let set = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (seconds, first) = (set(SECONDS), set(FIRST).unwrap_or(0));
    let start = Instant::now();
    (first..).take_while(move |round| match seconds {
        None => *round < first + count,
        Some(seconds) => start.elapsed() < Duration::from_secs(seconds),
    })
}

/// Fails a test whose input has taken too long.
#[track_caller]
pub(crate) fn in_time(start: Instant, round: u64, input: &[u8]) {
    let took = start.elapsed();
    assert!(took < LONGEST, "input {round} took {took:?}: {:?}", String::from_utf8_lossy(input));
}
