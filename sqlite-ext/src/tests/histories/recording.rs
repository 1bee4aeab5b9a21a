//! Recorded histories of people typing into one text, key by key.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// A history of edits: each is by one of at most two people, who had seen all edits before
/// `parents`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Recording {
    pub(crate) end_content: String,
    #[serde(rename = "txns")]
    pub(crate) edits: Vec<Edit>,
}

#[derive(Deserialize)]
pub(crate) struct Edit {
    /// None where the history has one author: each edit knows the one before it.
    parents: Option<Vec<usize>>,
    #[serde(default)]
    agent: usize,
    /// Where, how many characters went, and what came.
    pub(crate) patches: Vec<(usize, usize, String)>,
}

/// What one person typed in one go, and nobody saw in part.
pub(crate) struct Sitting<'a> {
    pub(crate) agent: usize,
    /// The number of the last edit of the other person that this one had seen.
    pub(crate) seen: Option<usize>,
    /// The number of its own last edit.
    pub(crate) last: usize,
    pub(crate) edits: Vec<&'a Edit>,
}

impl Sitting<'_> {
    /// Returns the text after the sitting.
    pub(crate) fn typed_into(&self, text: &str) -> String {
        let mut text: Vec<char> = text.chars().collect();
        for (at, gone, came) in self.edits.iter().flat_map(|edit| &edit.patches) {
            text.splice(*at..at + gone, came.chars());
        }
        text.into_iter().collect()
    }
}

impl Recording {
    /// Reads `<name>.json.gz`, of the public editing traces of josephg, in the folder that
    /// `SYNCLINE_DATA` names; `None` where it names none.
    pub(crate) fn read(name: &str) -> Option<Self> {
        let folder = std::env::var_os("SYNCLINE_DATA")?;
        let file = Path::new(&folder).join(format!("{name}.json.gz"));
        let unpacked = Command::new("gzip").arg("-dc").arg(&file).output();
        let unpacked = unpacked.expect("gzip runs");
        assert!(unpacked.status.success(), "{} is there", file.display());
        Some(serde_json::from_slice(&unpacked.stdout).expect("it is a recording"))
    }

    /// Makes one of people who write at both ends of a text, two edits of one and one of the other,
    /// and see of each other now and then.
    pub(crate) fn of_two(edits_count: usize) -> Self {
        let mut edits: Vec<Edit> = Vec::new();
        let mut last = [None; 2];
        let mut texts = [String::new(), String::new()];
        let mut seen = [0; 2];
        for number in 0..edits_count {
            let agent = number % 3 % 2;
            let mut parents: Vec<usize> = last[agent].into_iter().collect();
            if number % 10 == 0 {
                parents.extend(last[1 - agent]);
                seen[agent] = texts[1 - agent].len();
            }
            let word = format!("{number} ");
            let at = if agent == 0 {
                texts[0].len()
            } else {
                seen[1] + texts[1].len()
            };
            edits.push(Edit {
                parents: Some(parents),
                agent,
                patches: vec![(at, 0, word.clone())],
            });
            texts[agent].push_str(&word);
            last[agent] = Some(edits.len() - 1);
        }
        Recording {
            end_content: texts.concat(),
            edits,
        }
    }

    /// Makes one of somebody who writes words, and goes back to take out a letter now and then.
    pub(crate) fn of_one(edits_count: usize) -> Self {
        let mut text = String::new();
        let mut edit = |number: usize| {
            let patch = match number % 7 {
                6 => (number * 31 % text.len(), 1, String::new()),
                _ => (text.len(), 0, format!("{number} ")),
            };
            text.replace_range(patch.0..patch.0 + patch.1, &patch.2);
            Edit {
                parents: None,
                agent: 0,
                patches: vec![patch],
            }
        };
        let edits = (0..edits_count).map(&mut edit).collect();
        Recording {
            end_content: text,
            edits,
        }
    }

    /// Returns the edits in sittings of at most `edits_max`.
    pub(crate) fn sittings(&self, edits_max: usize) -> Vec<Sitting<'_>> {
        let edits = &self.edits;
        let mut is_seen = vec![false; edits.len()];
        for edit in edits {
            for parent in edit.parents.iter().flatten() {
                is_seen[*parent] |= edits[*parent].agent != edit.agent;
            }
        }
        let mut sittings: Vec<Sitting<'_>> = Vec::new();
        for (number, edit) in edits.iter().enumerate() {
            let before = number.checked_sub(1);
            let parents = match &edit.parents {
                Some(parents) => parents.clone(),
                None => before.into_iter().collect(),
            };
            let goes_on = |going: &&mut Sitting<'_>| {
                let is_next = parents == [going.last] && going.agent == edit.agent;
                is_next && !is_seen[going.last] && going.edits.len() < edits_max
            };
            if let Some(going) = sittings.last_mut().filter(goes_on) {
                going.edits.push(edit);
                going.last = number;
                continue;
            }
            let of_the_other = |parent: &usize| edits[*parent].agent != edit.agent;
            sittings.push(Sitting {
                agent: edit.agent,
                seen: parents.into_iter().filter(of_the_other).max(),
                last: number,
                edits: vec![edit],
            });
        }
        sittings
    }
}
