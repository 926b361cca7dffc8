//! Statements over lists, in few lengths: each is prepared once a connection. What a list lacks to
//! the next length is filled with its last item, which changes nothing where items stand in an IN
//! list or are written by key.

/// Lengths of lists.
const LENGTHS: [usize; 4] = [4, 20, 100, 500];
/// The longest of them.
pub const LENGTH_MAX: usize = 500;

/// The items in lists of a few lengths; no list at all for no items.
pub fn padded<T: Clone>(items: &[T]) -> impl Iterator<Item = Vec<T>> {
    items.chunks(LENGTH_MAX).map(|chunk| {
        let fits = LENGTHS.into_iter().find(|length| *length >= chunk.len());
        let mut list = chunk.to_vec();
        if let Some(last) = chunk.last() {
            list.resize(fits.unwrap_or(LENGTH_MAX), last.clone());
        }
        list
    })
}

/// `one, one, …`
#[must_use]
pub fn places(one: &str, count: usize) -> String {
    vec![one; count].join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_one_of_few_lengths_and_hold_every_item() {
        assert_eq!(padded::<u8>(&[]).count(), 0);
        assert_eq!(padded(&[1, 2, 3]).collect::<Vec<_>>(), [vec![1, 2, 3, 3]]);
        let long: Vec<u32> = (0..1_021).collect();
        let lists: Vec<Vec<u32>> = padded(&long).collect();
        assert_eq!(lists.iter().map(Vec::len).collect::<Vec<_>>(), [500, 500, 100]);
        let mut all: Vec<u32> = lists.into_iter().flatten().collect();
        all.dedup();
        assert_eq!(all, long);
    }
}
