//! A digest of a set of rows that does not depend on their order, has a fixed size, and still names the rows in which
//! two sets differ.
//!
//! Rows fall into buckets by a hash of their id. A bucket keeps three sums over its rows, in the field of integers
//! modulo 2⁶¹−1: of the row's digest *d*, of *d·h* and of *d·h²*, where *h* is the id's hash. The difference of two
//! buckets is zero where their rows agree. Where exactly one row differs, the quotient of the second and first sum is
//! that row's *h*, and the square of the second is the product of the others; where several do, both fail to hold but
//! for one chance in 2⁶¹. A first level holds every row, three more hold one row in 64, 4,096 and 262,144, so that some
//! rows can be named however many differ.

use sha2::{Digest, Sha256};

/// 2⁶¹ − 1, a prime.
const P: u64 = (1 << 61) - 1;

/// Buckets of each level.
const BUCKETS: [usize; 4] = [256, 64, 64, 64];
/// A row belongs to a level when so many low bits of its hash are zero.
const ZEROS: [u32; 4] = [0, 6, 12, 18];
/// All buckets of a sketch.
pub(crate) const SIZE: usize = 256 + 3 * 64;
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
pub(crate) struct Salted(Sha256);

impl Salted {
    pub(crate) fn new(salt: &[u8]) -> Self {
        Self(Sha256::new_with_prefix(salt))
    }

    /// The same for one column, so that equal values in two columns have different digests.
    pub(crate) fn column(&self, name: &str) -> Self {
        let mut hash = self.0.clone();
        hash.update(name.as_bytes());
        hash.update([0]);
        Self(hash)
    }

    /// The hash of an id: any number of the field but zero.
    pub(crate) fn id(&self, id: &[u8]) -> u64 {
        self.number(&[b"id", id])
    }

    /// The digest of a value in the row with that id. A value that moves to another row has another digest there.
    pub(crate) fn value(&self, row: u64, value: &[u8]) -> u64 {
        self.number(&[&row.to_be_bytes(), value])
    }

    fn number(&self, parts: &[&[u8]]) -> u64 {
        let mut hash = self.0.clone();
        for part in parts {
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        (u64::from_be_bytes(first) % (P - 1)) + 1
    }
}

/// The buckets of a row: at most one of each level.
fn places(row: u64) -> impl Iterator<Item = usize> {
    let mut base = 0;
    ZEROS
        .into_iter()
        .zip(BUCKETS)
        .filter_map(move |(zeros, size)| {
            let start = base;
            base += size;
            (row.trailing_zeros() >= zeros).then(|| {
                let spread = (row >> 20) % size as u64;
                // Below 256.
                start + usize::try_from(spread).unwrap_or_default()
            })
        })
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
    /// At least so many rows differ; about so many where a number of them share their buckets.
    pub rows: u64,
    /// Whether every one of them stands in [`Differing::found`].
    pub exact: bool,
    /// Hashes of ids whose row differs, and by how much.
    pub found: Vec<(u64, u64)>,
}

impl Sketch {
    /// Adds a row's digest.
    pub(crate) fn add(&mut self, row: u64, digest: u64) {
        let moment = multiply(digest, row);
        let moments = [digest, moment, multiply(moment, row)];
        for place in places(row) {
            for (sum, term) in self.0[place].iter_mut().zip(moments) {
                *sum = add(*sum, term);
            }
        }
    }

    /// A digest of the whole set.
    pub(crate) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for sum in self.0[..BUCKETS[0]].iter().flatten() {
            hash.update(sum.to_be_bytes());
        }
        hash.finalize()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// What differs, level by level until a level can say all of its rows, or as many of them as can be told apart.
    pub(crate) fn differing(&self, other: &Self) -> Differing {
        let mut result = Differing {
            exact: true,
            ..Differing::default()
        };
        let mut start = 0;
        let mut best = 0;
        for (level, size) in BUCKETS.into_iter().enumerate() {
            let (mut unequal, mut told) = (0u64, Vec::new());
            for place in start..start + size {
                let difference: [u64; 3] =
                    std::array::from_fn(|n| subtract(other.0[place][n], self.0[place][n]));
                if difference == [0; 3] {
                    continue;
                }
                unequal += 1;
                let [first, second, third] = difference;
                let alone =
                    first != 0 && multiply(second, second) == multiply(first, third) && second != 0;
                if alone {
                    let row = multiply(second, inverse(first));
                    if places(row).any(|home| home == place) {
                        told.push((row, first));
                    }
                }
            }
            start += size;
            if unequal == 0 {
                break;
            }
            let crowded = unequal - told.len() as u64;
            // Two rows and more share a crowded bucket; when all are crowded a sparser level estimates better.
            best = best.max((told.len() as u64 + 2 * crowded) << ZEROS[level]);
            for found in told {
                if !result.found.contains(&found) {
                    result.found.push(found);
                }
            }
            if level == 0 {
                result.exact = crowded == 0;
                if result.exact {
                    break;
                }
            } else if crowded == 0 {
                break;
            }
        }
        result.rows = if result.exact {
            result.found.len() as u64
        } else {
            best.max(result.found.len() as u64)
        };
        result
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

/// Which rows there are, with enough of their ids to name one that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Presence {
    sums: Sketch,
    ids: Vec<[u8; ID + 1]>,
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
        for place in places(row) {
            let cell = &mut self.ids[place];
            for (to, from) in cell.iter_mut().zip(&id[..kept]) {
                *to ^= from;
            }
            // At most 120.
            cell[ID] ^= u8::try_from(kept).unwrap_or_default();
        }
    }

    pub(crate) fn digest(&self) -> String {
        self.sums.digest()
    }

    /// The rows that only one of the two has, as far as they can be told apart, and how many there are at least.
    pub(crate) fn differing(&self, other: &Self) -> (Differing, Vec<Unpaired>) {
        let differing = self.sums.differing(&other.sums);
        let unpaired = differing
            .found
            .iter()
            .map(|&(row, sign)| {
                // The level at which the row was alone has its id alone, too; the deepest has the fewest others.
                let id = places(row)
                    .map(|place| {
                        let mut cell = self.ids[place];
                        for (to, from) in cell.iter_mut().zip(&other.ids[place]) {
                            *to ^= from;
                        }
                        (place, cell)
                    })
                    .filter(|(place, _)| {
                        let mine = self.sums.0[*place];
                        let others = other.sums.0[*place];
                        subtract(others[0], mine[0]) == sign
                            && subtract(others[1], mine[1]) == multiply(sign, row)
                    })
                    .map(|(_, cell)| {
                        let kept = usize::from(cell[ID]).min(ID);
                        String::from_utf8_lossy(&cell[..kept]).into_owned()
                    })
                    .next()
                    .unwrap_or_default();
                Unpaired {
                    row,
                    extra: sign == 1,
                    id,
                }
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
        assert!(differing.found.iter().all(|(row, _)| known.contains(row)));
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
