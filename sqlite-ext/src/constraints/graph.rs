//! The order in which tables are settled: parents before their children, and tables whose foreign
//! keys form a cycle together.

use std::collections::{BTreeMap, BTreeSet};

/// Tables that are settled together: one, or several that are each other's parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Component {
    pub(crate) members: BTreeSet<i64>,
    /// Whether a row may depend on a row of the same component.
    pub(super) is_cyclic: bool,
}

/// Returns the components of a graph, each after those that it depends on. `edges` lead from
/// children to parents.
pub(crate) fn components(nodes: &BTreeSet<i64>, edges: &BTreeSet<(i64, i64)>) -> Vec<Component> {
    let mut search = Search::default();
    for (child, parent) in edges {
        search.parents.entry(*child).or_default().insert(*parent);
    }
    let ends = edges.iter().flat_map(|(child, parent)| [child, parent]);
    let all: BTreeSet<i64> = nodes.iter().chain(ends).copied().collect();
    for node in all {
        if !search.numbers.contains_key(&node) {
            search.visit(node);
        }
    }
    search.found
}

/// Tarjan's search for strongly connected components, on a stack of its own.
#[derive(Default)]
struct Search {
    parents: BTreeMap<i64, BTreeSet<i64>>,
    numbers: BTreeMap<i64, usize>,
    /// The least number that is reached from a node by way of open ones.
    lowest: BTreeMap<i64, usize>,
    open: Vec<i64>,
    found: Vec<Component>,
}

impl Search {
    fn visit(&mut self, root: i64) {
        let mut path = vec![(root, self.enter(root))];
        while let Some((node, left)) = path.last_mut() {
            let node = *node;
            if let Some(parent) = left.pop() {
                match self.numbers.get(&parent) {
                    None => path.push((parent, self.enter(parent))),
                    Some(number) if self.open.contains(&parent) => self.lower(node, *number),
                    Some(_) => {}
                }
                continue;
            }
            path.pop();
            if let Some((below, _)) = path.last() {
                self.lower(*below, self.lowest[&node]);
            }
            if self.lowest[&node] == self.numbers[&node] {
                self.close(node);
            }
        }
    }

    /// Opens a node, and returns what is to be visited from it.
    fn enter(&mut self, node: i64) -> Vec<i64> {
        let number = self.numbers.len();
        self.numbers.insert(node, number);
        self.lowest.insert(node, number);
        self.open.push(node);
        let parents = self.parents.get(&node).into_iter().flatten();
        parents.copied().collect()
    }

    fn lower(&mut self, node: i64, number: usize) {
        let lowest = self.lowest.entry(node).or_insert(number);
        *lowest = number.min(*lowest);
    }

    /// Takes a component off the open nodes, from its first node on.
    fn close(&mut self, first: i64) {
        let from = self.open.iter().position(|node| *node == first);
        let members: BTreeSet<i64> = self.open.drain(from.unwrap_or(0)..).collect();
        let is_own_parent = self
            .parents
            .get(&first)
            .is_some_and(|own| own.contains(&first));
        self.found.push(Component {
            is_cyclic: members.len() > 1 || is_own_parent,
            members,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_cycles_together() {
        let edges = BTreeSet::from([(1, 2), (2, 3), (3, 2), (4, 4), (1, 4), (5, 1)]);
        let found = components(&BTreeSet::from([6]), &edges);
        let listed: Vec<(Vec<i64>, bool)> = found
            .iter()
            .map(|part| (part.members.iter().copied().collect(), part.is_cyclic))
            .collect();
        assert_eq!(
            listed,
            [
                (vec![4], true),
                (vec![2, 3], true),
                (vec![1], false),
                (vec![5], false),
                (vec![6], false)
            ]
        );
    }
}
