//! Holds the documents against the source: what they name is there.

use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/merge.md",
    "docs/storage.md",
    "docs/wire.md",
];

#[test]
fn every_path_that_a_document_names_is_there() {
    let mut paths_count = 0;
    for document in DOCUMENTS {
        let text = read(document);
        for name in quoted(&text) {
            let is_path = name.contains('/') && !name.contains([' ', '<', '*', '"']);
            if is_path && (name.ends_with(".rs") || name.contains("/src/")) {
                let is_there = Path::new(ROOT).join(name).exists();
                assert!(is_there, "{document} names `{name}`");
                paths_count += 1;
            }
        }
        for target in links(&text) {
            let base = Path::new(document).parent().expect("a file has a folder");
            let is_there = Path::new(ROOT).join(base).join(target).exists();
            assert!(is_there, "{document} links to {target}");
        }
    }
    assert!(paths_count > 60, "{paths_count}");
}

#[test]
fn every_step_of_a_change_is_where_the_architecture_says() {
    let text = read("ARCHITECTURE.md");
    let mut steps_count = 0;
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_, file, functions] = cells[..] else {
            panic!("a step, a file and its functions: {row}");
        };
        for file in quoted(file) {
            let source = read(file);
            for function in quoted(functions) {
                let is_there = [format!("fn {function}("), format!("fn {function}<")]
                    .iter()
                    .any(|head| source.contains(head));
                assert!(is_there, "{file} has no `{function}`");
                steps_count += 1;
            }
        }
    }
    assert!(steps_count > 25, "{steps_count}");
    for step in [
        "captured",
        "folded",
        "merged",
        "sealed",
        "logged",
        "sent",
        "applied",
        "snapshotted",
        "restored",
    ] {
        assert!(text.contains(step), "{step}");
    }
}

#[test]
fn the_readme_is_short() {
    let count = read("README.md").lines().count();
    assert!(count <= 120, "{count} lines");
}

/// Returns what stands between backquotes, outside fenced blocks.
fn quoted(text: &str) -> Vec<&str> {
    let outside = text.split("```").step_by(2);
    outside
        .flat_map(|part| part.split('`').skip(1).step_by(2))
        .collect()
}

/// Returns the targets of links to files of the project.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split([')', '#']).next());
    targets
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

fn read(file: &str) -> String {
    let path = Path::new(ROOT).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
