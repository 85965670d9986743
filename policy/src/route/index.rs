//! The matches of a service's routes by the paths that they ask for: a tree by the elements of paths, so that what a request
//! costs follows from its own path and not from how many routes there are. It leaves out only what can't hold; whoever asks
//! tests the rest.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// The paths for which a match may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place<'p> {
    /// This one.
    Exact(Cow<'p, [u8]>),
    /// This one and all below it, element by element.
    Under(Cow<'p, [u8]>),
    All,
    /// No element says which.
    Unknown,
}

/// Matches by their places. Each is a number, and the smallest that holds is looked for.
#[derive(Debug)]
pub(super) struct PathTree {
    /// The first is the root: every path leads past it.
    nodes: Vec<Node>,
    /// By bucket, and in a bucket by parent and element: who makes texts that share a bucket makes one that is searched by halves.
    edges: Vec<Edge>,
    /// Where each bucket begins among `edges`, and the end of the last.
    starts: Vec<usize>,
    /// Those of unknown places.
    unplaced: Vec<usize>,
}

/// What the elements so far lead to. Numbers are in ascending order.
#[derive(Debug, Default)]
struct Node {
    parent: usize,
    exact: Vec<usize>,
    under: Vec<usize>,
}

#[derive(Debug)]
struct Edge {
    parent: usize,
    element: Box<[u8]>,
    child: usize,
}

const ROOT: usize = 0;

/// Elements by which a match is found. What is deeper is found among all below them, and asked: otherwise a path of many short
/// elements would cost a hundred times its own text.
const DEEPEST: usize = 16;

impl PathTree {
    /// Of matches in ascending order.
    pub(super) fn of<'p>(matches: impl Iterator<Item = (usize, Place<'p>)>) -> Self {
        let (mut nodes, mut children) = (vec![Node::default()], BTreeMap::new());
        let mut unplaced = Vec::new();
        for (number, place) in matches {
            match place {
                Place::Exact(path) if elements(&path).count() <= DEEPEST => {
                    grow(&mut nodes, &mut children, &path).exact.push(number);
                }
                Place::Exact(path) | Place::Under(path) => {
                    grow(&mut nodes, &mut children, &path).under.push(number);
                }
                Place::All => nodes[ROOT].under.push(number),
                Place::Unknown => unplaced.push(number),
            }
        }
        for Node { parent: _, exact, under } in &mut nodes {
            exact.shrink_to_fit();
            under.shrink_to_fit();
        }
        let edge =
            |((parent, element), child): ((usize, Vec<u8>), usize)| Edge { parent, element: element.into(), child };
        let mut edges: Vec<Edge> = children.into_iter().map(edge).collect();
        let buckets = edges.len().next_power_of_two();
        let bucket = |edge: &Edge| bucket_of(edge.parent, &edge.element, buckets);
        // Stable: inside a bucket they stay in the order of the map.
        edges.sort_by_cached_key(bucket);
        let mut starts = vec![0; buckets + 1];
        edges.iter().for_each(|edge| starts[bucket(edge) + 1] += 1);
        (0..buckets).for_each(|bucket| starts[bucket + 1] += starts[bucket]);
        Self { nodes, edges, starts, unplaced }
    }

    /// The first match that holds for a path and comes before another one, where there is such.
    pub(super) fn first(
        &self,
        path: &[u8],
        before: Option<usize>,
        mut holds: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let mut found = None;
        let mut ask = |numbers: &[usize]| {
            let end = found.or(before).unwrap_or(usize::MAX);
            let mut earlier = numbers.iter().copied().take_while(|number| *number < end);
            found = earlier.find(|number| holds(*number)).or(found);
        };
        let (mut at, is_whole) = self.walk(path);
        // Most often in the order of precedence: what comes first leaves the rest unasked.
        if is_whole {
            ask(&self.nodes[at].exact);
        }
        ask(&self.unplaced);
        loop {
            ask(&self.nodes[at].under);
            if at == ROOT {
                return found;
            }
            at = self.nodes[at].parent;
        }
    }

    /// As far as the elements of a path lead, and whether that is its end.
    fn walk(&self, path: &[u8]) -> (usize, bool) {
        let mut at = ROOT;
        for element in elements(path) {
            let Some(child) = self.child(at, element) else { return (at, false) };
            at = child;
        }
        (at, true)
    }

    fn child(&self, parent: usize, element: &[u8]) -> Option<usize> {
        let bucket = bucket_of(parent, element, self.starts.len() - 1);
        let edges = &self.edges[self.starts[bucket]..self.starts[bucket + 1]];
        let found = edges.binary_search_by(|edge| (edge.parent, &*edge.element).cmp(&(parent, element)));
        found.ok().map(|at| edges[at].child)
    }
}

/// The node of a path, or of the first part of a deep one, which is made where it is not there.
fn grow<'n>(nodes: &'n mut Vec<Node>, children: &mut BTreeMap<(usize, Vec<u8>), usize>, path: &[u8]) -> &'n mut Node {
    let mut at = ROOT;
    for element in elements(path).take(DEEPEST) {
        let new = nodes.len();
        let child = *children.entry((at, element.to_vec())).or_insert(new);
        if child == new {
            nodes.push(Node { parent: at, ..Node::default() });
        }
        at = child;
    }
    &mut nodes[at]
}

/// What is between the slashes: a path begins with an empty one.
fn elements(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
}

/// `buckets` is a power of two.
fn bucket_of(parent: usize, element: &[u8], buckets: usize) -> usize {
    // FNV-1a: quick for short texts.
    const PRIME: usize = 0x0100_0193;
    let hash = element.iter().fold(parent ^ 0x811c_9dc5, |hash, byte| (hash ^ usize::from(*byte)).wrapping_mul(PRIME));
    // Its upper bits have seen more of the text.
    (hash ^ (hash >> 15)) & (buckets - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(path: &str) -> Place<'_> {
        Place::Exact(path.as_bytes().into())
    }

    fn under(path: &str) -> Place<'_> {
        Place::Under(path.as_bytes().into())
    }

    /// All numbers that are asked about where none holds, in ascending order.
    fn asked(tree: &PathTree, path: &str) -> Vec<usize> {
        let mut asked = Vec::new();
        let found = tree.first(path.as_bytes(), None, |number| {
            asked.push(number);
            false
        });
        assert_eq!(found, None);
        asked.sort_unstable();
        asked
    }

    #[test]
    fn only_what_may_hold_is_asked() {
        let places = [
            exact("/a"),
            exact("/a/"),
            exact("*"),
            Place::Unknown,
            under("/a/b"),
            under("/a"),
            under("/ab"),
            under(""),
            Place::All,
        ];
        let tree = PathTree::of(places.into_iter().enumerate());
        let check = |path: &str, expect: &[usize]| assert_eq!(asked(&tree, path), expect, "{path}");
        check("/a", &[0, 3, 5, 7, 8]);
        check("/a/", &[1, 3, 5, 7, 8]);
        check("/a/b", &[3, 4, 5, 7, 8]);
        check("/a/b/c", &[3, 4, 5, 7, 8]);
        check("/a/bc", &[3, 5, 7, 8]);
        check("/ab", &[3, 6, 7, 8]);
        check("/", &[3, 7, 8]);
        check("//a", &[3, 7, 8]);
        check("*", &[2, 3, 8]);
        check("", &[3, 7, 8]);
        assert_eq!(asked(&PathTree::of(std::iter::empty()), "/a"), [0_usize; 0]);
    }

    #[test]
    fn the_first_that_holds_is_found_and_what_comes_later_is_not_asked() {
        let tree = PathTree::of([exact("/a"), under("/a"), under(""), Place::All].into_iter().enumerate());
        let check = |holding: &[usize], before: Option<usize>, expect: (Option<usize>, usize)| {
            let mut asked = 0;
            let found = tree.first(b"/a", before, |number| {
                asked += 1;
                holding.contains(&number)
            });
            assert_eq!((found, asked), expect, "{holding:?} {before:?}");
        };
        check(&[0, 1, 2, 3], None, (Some(0), 1));
        check(&[2, 3], None, (Some(2), 3));
        check(&[2, 3], Some(2), (None, 2));
        check(&[], None, (None, 4));
    }

    /// A deep path is found by its first elements, and takes no more room than they do.
    #[test]
    fn deep_paths_are_found_by_their_beginning() {
        let begin = "/a".repeat(DEEPEST - 1);
        let [deep, other] = ["/b".repeat(500), "/c".repeat(500)].map(|rest| format!("{begin}{rest}"));
        let places = [exact(&deep), under(&other), exact(&begin), under(&begin)];
        let tree = PathTree::of(places.into_iter().enumerate());
        assert_eq!(tree.nodes.len(), 1 + DEEPEST);
        let check = |path: &str, expect: &[usize]| assert_eq!(asked(&tree, path), expect, "{path}");
        check(&deep, &[0, 1, 3]);
        check(&format!("{other}/x"), &[0, 1, 3]);
        check(&begin, &[0, 1, 2, 3]);
        check("/a/a", &[]);
    }

    /// Of many thousands no more are asked than of a few.
    #[test]
    fn what_others_there_are_costs_nothing() {
        let paths: Vec<String> = (0..20_000).map(|number| format!("/api/v{}/thing-{number}", number % 7)).collect();
        let places = paths.iter().map(|path| under(path)).chain([under("/api"), Place::All]);
        let tree = PathTree::of(places.enumerate());
        for (number, path) in paths.iter().enumerate() {
            assert_eq!(asked(&tree, &format!("{path}/x/y")), [number, 20_000, 20_001]);
        }
        let longest = tree.starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(longest <= 12, "a bucket of {longest}");
    }
}
