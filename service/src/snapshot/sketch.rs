//! A digest of a set of rows that does not depend on their order, has a fixed size, and still names the rows in which
//! two sets differ.
//!
//! Rows fall into buckets by a hash of their id. A bucket keeps three sums over its rows, in the field of integers
//! modulo 2⁶¹−1: of the row's digest *d*, of *d·h* and of *d·h²*, where *h* is the id's hash. The difference of two
//! buckets is zero where their rows agree. Where exactly one row differs, the quotient of the second and first sum is
//! that row's *h*, and the square of the second is the product of the others; where several do, both fail to hold but
//! for one chance in 2⁶¹.
//!
//! Three tables hold every row, each by another part of its hash, so that a row that is alone in one can be taken out of
//! the others, until all are told apart: that works for up to about 300 differing rows. Three more tables hold one row in
//! 64, 4,096 and 262,144, so that some rows can be named, and all estimated, however many differ.

use std::hash::Hasher;

use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher24;

/// 2⁶¹ − 1, a prime.
const P: u64 = (1 << 61) - 1;

/// Buckets of each table.
const BUCKETS: [usize; 6] = [128, 128, 128, 64, 64, 64];
/// A row is in a table when so many low bits of its hash are zero.
const ZEROS: [u32; 6] = [0, 0, 0, 6, 12, 18];
/// Where in the hash the number of the bucket stands.
const SHIFTS: [u32; 6] = [20, 30, 40, 20, 20, 20];
/// The buckets of the tables that hold every row.
const ALL: usize = 3 * 128;
/// All buckets of a sketch.
pub(crate) const SIZE: usize = ALL + 3 * 64;
/// The part of an id that is kept beside the sums.
const ID: usize = 120;

fn reduce(value: u128) -> u64 {
    let folded = (value & u128::from(P)) + (value >> 61);
    let folded = (folded & u128::from(P)) + (folded >> 61);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "two foldings leave at most 61 bits and a carry"
    )]
    let small = folded as u64;
    if small >= P { small - P } else { small }
}

fn add(a: u64, b: u64) -> u64 {
    reduce(u128::from(a) + u128::from(b))
}

fn subtract(a: u64, b: u64) -> u64 {
    add(a, P - b)
}

fn multiply(a: u64, b: u64) -> u64 {
    reduce(u128::from(a) * u128::from(b))
}

/// The inverse of a number that is not zero, by Fermat.
fn inverse(a: u64) -> u64 {
    let (mut base, mut exponent, mut result) = (a, P - 2, 1);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = multiply(result, base);
        }
        base = multiply(base, base);
        exponent >>= 1;
    }
    result
}

/// Hashes that nobody can repeat without the file's salt.
#[derive(Clone)]
pub(crate) enum Salted {
    /// SipHash-2-4 under a key that is made of the salt: it is made for many short values.
    Sip([u8; 16]),
    /// SHA-256 behind the salt, in files of version 1.
    Sha(Sha256),
}

impl Salted {
    pub(crate) fn new(salt: &[u8]) -> Self {
        Self::Sip(key(&[salt]))
    }

    pub(crate) fn of_version_1(salt: &[u8]) -> Self {
        Self::Sha(Sha256::new_with_prefix(salt))
    }

    /// The same for one column, so that equal values in two columns have different digests.
    pub(crate) fn column(&self, name: &str) -> Self {
        match self {
            Self::Sip(salt) => Self::Sip(key(&[salt, name.as_bytes(), &[0]])),
            Self::Sha(hash) => {
                let mut hash = hash.clone();
                hash.update(name.as_bytes());
                hash.update([0]);
                Self::Sha(hash)
            }
        }
    }

    /// The hash of an id: any number of the field but zero.
    pub(crate) fn id(&self, id: &[u8]) -> u64 {
        self.number(b"id", id)
    }

    /// The digest of a value in the row with that id. A value that moves to another row has another digest there.
    pub(crate) fn value(&self, row: u64, value: &[u8]) -> u64 {
        self.number(&row.to_be_bytes(), value)
    }

    fn number(&self, before: &[u8], value: &[u8]) -> u64 {
        let hash = match self {
            Self::Sip(key) => {
                let mut hash = SipHasher24::new_with_key(key);
                hash.write(before);
                hash.write(value);
                hash.finish()
            }
            Self::Sha(hash) => {
                let mut hash = hash.clone();
                hash.update(before);
                hash.update(value);
                first(&hash.finalize())
            }
        };
        (hash % (P - 1)) + 1
    }
}

fn key(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let digest = hash.finalize();
    std::array::from_fn(|n| digest[n])
}

fn first(digest: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

/// The buckets of a row: one of each table that it is in.
fn places(row: u64) -> impl Iterator<Item = usize> {
    let mut base = 0;
    (0..BUCKETS.len()).filter_map(move |table| {
        let start = base;
        base += BUCKETS[table];
        (row.trailing_zeros() >= ZEROS[table]).then(|| {
            let bucket = (row >> SHIFTS[table]) % BUCKETS[table] as u64;
            // At most 127.
            start + usize::try_from(bucket).unwrap_or_default()
        })
    })
}

/// The three terms of a row's digest.
fn moments(row: u64, digest: u64) -> [u64; 3] {
    let moment = multiply(digest, row);
    [digest, moment, multiply(moment, row)]
}

/// The row that alone makes up a difference, and its digest's.
fn alone(place: usize, difference: [u64; 3]) -> Option<(u64, u64)> {
    let [first, second, third] = difference;
    if first == 0 || second == 0 || multiply(second, second) != multiply(first, third) {
        return None;
    }
    let row = multiply(second, inverse(first));
    places(row)
        .any(|home| home == place)
        .then_some((row, first))
}

/// The sums of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sketch(Vec<[u64; 3]>);

impl Default for Sketch {
    fn default() -> Self {
        Self(vec![[0; 3]; SIZE])
    }
}

/// What two sketches of one column differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Differing {
    /// So many rows differ; about so many where they cannot all be told apart.
    pub rows: u64,
    /// Whether every one of them stands in [`Differing::found`].
    pub exact: bool,
    /// Hashes of ids whose row differs, by how much, and the bytes that were kept of the id.
    pub found: Vec<(u64, u64, Vec<u8>)>,
}

impl Sketch {
    /// Adds a row's digest.
    pub(crate) fn add(&mut self, row: u64, digest: u64) {
        let moments = moments(row, digest);
        for place in places(row) {
            for (sum, term) in self.0[place].iter_mut().zip(moments) {
                *sum = add(*sum, term);
            }
        }
    }

    /// A digest of the whole set.
    pub(crate) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for sum in self.0[..ALL].iter().flatten() {
            hash.update(sum.to_be_bytes());
        }
        hash.finalize()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// What differs.
    pub(crate) fn differing(&self, other: &Self) -> Differing {
        tell_apart(self.minus(other), Vec::new())
    }

    fn minus(&self, other: &Self) -> Vec<[u64; 3]> {
        let pairs = self.0.iter().zip(&other.0);
        pairs
            .map(|(mine, others)| std::array::from_fn(|n| subtract(others[n], mine[n])))
            .collect()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0
            .iter()
            .flatten()
            .flat_map(|sum| sum.to_be_bytes())
            .collect()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != SIZE * 24 {
            return None;
        }
        let number = |chunk: &[u8]| chunk.try_into().map(u64::from_be_bytes).unwrap_or_default();
        let sums = bytes
            .chunks_exact(24)
            .map(|chunk| std::array::from_fn(|n| number(&chunk[n * 8..n * 8 + 8])))
            .collect();
        Some(Self(sums))
    }
}

/// Takes rows that are alone in a bucket out of all others, until none is left or none is alone. `ids` has the bytes that
/// the buckets keep of their ids, or nothing.
fn tell_apart(mut sums: Vec<[u64; 3]>, mut ids: Vec<Id>) -> Differing {
    let mut result = Differing::default();
    let mut take = |sums: &mut Vec<[u64; 3]>, ids: &mut Vec<Id>, place: usize| {
        let Some((row, digest)) = alone(place, sums[place]) else {
            return false;
        };
        let id = ids.get(place).copied();
        let terms = moments(row, digest);
        for home in places(row) {
            for (sum, term) in sums[home].iter_mut().zip(terms) {
                *sum = subtract(*sum, term);
            }
            if let Some(id) = id {
                xor(&mut ids[home], &id);
            }
        }
        let kept = id.map_or_else(Vec::new, |id| id[..usize::from(id[ID]).min(ID)].to_vec());
        result.found.push((row, digest, kept));
        true
    };
    loop {
        let mut taken = false;
        for place in 0..ALL {
            taken |= take(&mut sums, &mut ids, place);
        }
        if !taken {
            break;
        }
    }
    let left = |sums: &[[u64; 3]]| sums.iter().filter(|sum| **sum != [0; 3]).count() as u64;
    let crowded = left(&sums[..BUCKETS[0]]);
    if crowded == 0 {
        result.rows = result.found.len() as u64;
        result.exact = true;
        return result;
    }
    // A bucket that is not told apart has two rows at the least; a sparser table says more where all are crowded.
    let known = result.found.len() as u64;
    let mut rows = known + 2 * crowded;
    let mut start = ALL;
    for table in 3..BUCKETS.len() {
        let end = start + BUCKETS[table];
        let unequal = left(&sums[start..end]);
        let mut told = 0;
        for (place, sum) in sums.iter().enumerate().take(end).skip(start) {
            let Some((row, digest)) = alone(place, *sum) else {
                continue;
            };
            told += 1;
            if !result.found.iter().any(|(known, ..)| *known == row) {
                let kept = ids
                    .get(place)
                    .map_or_else(Vec::new, |id| id[..usize::from(id[ID]).min(ID)].to_vec());
                result.found.push((row, digest, kept));
            }
        }
        rows = rows.max(known + ((told + 2 * (unequal - told)) << ZEROS[table]));
        start = end;
        if unequal * 2 <= BUCKETS[table] as u64 {
            // The densest table with room to spare says it best; in sparser ones a single row stands for too many.
            break;
        }
    }
    result.rows = rows;
    result
}

/// The bytes that a bucket keeps of the ids of its rows, and the sum of their lengths, all added without carry.
type Id = [u8; ID + 1];

fn xor(to: &mut Id, from: &Id) {
    for (to, from) in to.iter_mut().zip(from) {
        *to ^= from;
    }
}

/// Which rows there are, with enough of their ids to name one that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Presence {
    sums: Sketch,
    ids: Vec<Id>,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            sums: Sketch::default(),
            ids: vec![[0; ID + 1]; SIZE],
        }
    }
}

/// A row that only one of two sets has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unpaired {
    /// The hash of its id.
    pub row: u64,
    /// Whether the second set has it.
    pub extra: bool,
    /// Its id, as far as it was kept.
    pub id: String,
}

impl Presence {
    pub(crate) fn add(&mut self, row: u64, id: &[u8]) {
        self.sums.add(row, 1);
        let kept = id.len().min(ID);
        let mut padded = [0; ID + 1];
        padded[..kept].copy_from_slice(&id[..kept]);
        // At most 120.
        padded[ID] = u8::try_from(kept).unwrap_or_default();
        for place in places(row) {
            xor(&mut self.ids[place], &padded);
        }
    }

    pub(crate) fn digest(&self) -> String {
        self.sums.digest()
    }

    /// The rows that only one of the two has, as far as they can be told apart.
    pub(crate) fn differing(&self, other: &Self) -> (Differing, Vec<Unpaired>) {
        let mut ids = self.ids.clone();
        for (mine, others) in ids.iter_mut().zip(&other.ids) {
            xor(mine, others);
        }
        let differing = tell_apart(self.sums.minus(&other.sums), ids);
        let unpaired = differing
            .found
            .iter()
            .map(|(row, sign, id)| Unpaired {
                row: *row,
                extra: *sign == 1,
                id: String::from_utf8_lossy(id).into_owned(),
            })
            .collect();
        (differing, unpaired)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.sums.bytes();
        bytes.extend(self.ids.iter().flatten());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != SIZE * (24 + ID + 1) {
            return None;
        }
        let (sums, ids) = bytes.split_at(SIZE * 24);
        Some(Self {
            sums: Sketch::from_bytes(sums)?,
            ids: ids
                .chunks_exact(ID + 1)
                .map(|chunk| std::array::from_fn(|n| chunk[n]))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(rows: u32, change: impl Fn(u32) -> u8) -> (Presence, Sketch, Salted) {
        let salted = Salted::new(b"salt");
        let column = salted.column("c");
        let (mut presence, mut sketch) = (Presence::default(), Sketch::default());
        for n in 0..rows {
            let id = format!("row-{n}");
            let row = salted.id(id.as_bytes());
            presence.add(row, id.as_bytes());
            sketch.add(row, column.value(row, &[change(n)]));
        }
        (presence, sketch, salted)
    }

    #[test]
    fn the_order_of_rows_is_of_no_account() {
        let salted = Salted::new(b"salt");
        let mut one = Sketch::default();
        let mut other = Sketch::default();
        for n in 0..100u64 {
            one.add(salted.id(&n.to_be_bytes()), n + 1);
            other.add(salted.id(&(99 - n).to_be_bytes()), 100 - n);
        }
        assert_eq!(one, other);
        assert_eq!(one.digest(), other.digest());
    }

    #[test]
    fn the_one_row_that_differs_is_named() {
        let (_, before, salted) = filled(10_000, |_| 0);
        let (_, after, _) = filled(10_000, |n| u8::from(n == 7_777));
        let differing = before.differing(&after);
        assert_eq!((differing.rows, differing.exact), (1, true));
        assert_eq!(differing.found[0].0, salted.id(b"row-7777"));
    }

    #[test]
    fn two_hundred_rows_that_differ_are_all_named() {
        let (_, before, salted) = filled(10_000, |_| 0);
        let (_, after, _) = filled(10_000, |n| u8::from(n % 50 == 0));
        let differing = before.differing(&after);
        assert_eq!((differing.rows, differing.exact), (200, true));
        let mut found: Vec<u64> = differing.found.iter().map(|(row, ..)| *row).collect();
        let mut wanted: Vec<u64> = (0..200)
            .map(|n| salted.id(format!("row-{}", n * 50).as_bytes()))
            .collect();
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted);
    }

    #[test]
    fn rows_that_come_and_go_are_all_named() {
        let salted = Salted::new(b"salt");
        let (mut before, mut after) = (Presence::default(), Presence::default());
        for n in 0..100 {
            for (set, name) in [(&mut before, "old"), (&mut after, "new")] {
                let id = format!("{name}-{n}");
                set.add(salted.id(id.as_bytes()), id.as_bytes());
            }
        }
        let (differing, unpaired) = before.differing(&after);
        assert!(differing.exact);
        let mut ids: Vec<&str> = unpaired.iter().map(|row| row.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 200);
        assert!(
            unpaired
                .iter()
                .all(|row| row.extra == row.id.starts_with("new"))
        );
    }

    #[test]
    fn a_value_that_two_rows_swap_is_two_differences() {
        let (_, before, _) = filled(1000, |n| u8::from(n == 5));
        let (_, after, _) = filled(1000, |n| u8::from(n == 900));
        assert_eq!(before.differing(&after).rows, 2);
    }

    #[test]
    fn of_many_differences_some_are_named_and_all_are_estimated() {
        let (_, before, salted) = filled(50_000, |_| 0);
        let (_, after, _) = filled(50_000, |_| 1);
        let differing = before.differing(&after);
        assert!(!differing.exact);
        assert!(!differing.found.is_empty());
        assert!(
            (12_500..200_000).contains(&differing.rows),
            "{}",
            differing.rows
        );
        let known: std::collections::HashSet<u64> = (0..50_000)
            .map(|n| salted.id(format!("row-{n}").as_bytes()))
            .collect();
        assert!(differing.found.iter().all(|(row, ..)| known.contains(row)));
    }

    #[test]
    fn a_row_that_is_gone_is_named_from_what_was_kept() {
        let (before, ..) = filled(5000, |_| 0);
        let (after, ..) = filled(4999, |_| 0);
        let (differing, unpaired) = before.differing(&after);
        assert_eq!(differing.rows, 1);
        assert_eq!(unpaired[0].id, "row-4999");
        assert!(!unpaired[0].extra);
        let (_, unpaired) = after.differing(&before);
        assert!(unpaired[0].extra);
    }

    #[test]
    fn what_is_written_is_read() {
        let (presence, sketch, _) = filled(10, |_| 3);
        assert_eq!(Sketch::from_bytes(&sketch.bytes()), Some(sketch));
        assert_eq!(Presence::from_bytes(&presence.bytes()), Some(presence));
        assert_eq!(Sketch::from_bytes(b"short"), None);
    }
}
