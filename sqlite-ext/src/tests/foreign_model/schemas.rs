//! The tables that are played with, and their foreign keys.

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Policy {
    Hide,
    SetNull,
}

/// A foreign key: columns of the child, the parent, columns there; 0 is the id.
pub(super) struct Key {
    pub(super) columns: &'static [usize],
    pub(super) parent: usize,
    pub(super) parent_columns: &'static [usize],
    pub(super) policy: Policy,
}

pub(super) struct Spec {
    pub(super) name: &'static str,
    /// The columns beside the id, as SQL.
    pub(super) sql: &'static str,
    pub(super) columns: &'static [&'static str],
    pub(super) keys: &'static [Key],
    /// Columns of each unique index.
    pub(super) unique: &'static [&'static [usize]],
    pub(super) options: &'static str,
}

const fn key(columns: &'static [usize], parent: usize, parent_columns: &'static [usize]) -> Key {
    Key {
        columns,
        parent,
        parent_columns,
        policy: Policy::Hide,
    }
}

const fn null_key(
    columns: &'static [usize],
    parent: usize,
    parent_columns: &'static [usize],
) -> Key {
    Key {
        policy: Policy::SetNull,
        ..key(columns, parent, parent_columns)
    }
}

const LAYERS: &[Spec] = &[
    Spec {
        name: "p",
        sql: "u INTEGER, v INTEGER, UNIQUE(u)",
        columns: &["u", "v"],
        keys: &[],
        unique: &[&[1]],
        options: "",
    },
    Spec {
        name: "c",
        sql: "p INTEGER REFERENCES p(id) ON DELETE CASCADE ON UPDATE CASCADE, v INTEGER UNIQUE",
        columns: &["p", "v"],
        keys: &[key(&[1], 0, &[0])],
        unique: &[&[2]],
        options: "",
    },
    Spec {
        name: "d",
        sql: "c INTEGER REFERENCES c(id), q INTEGER REFERENCES p(u)",
        columns: &["c", "q"],
        keys: &[key(&[1], 1, &[0]), key(&[2], 0, &[1])],
        unique: &[],
        options: "",
    },
];

const TREE: &[Spec] = &[Spec {
    name: "n",
    sql: "up INTEGER REFERENCES n(id) DEFERRABLE INITIALLY DEFERRED, name INTEGER UNIQUE",
    columns: &["up", "name"],
    keys: &[key(&[1], 0, &[0])],
    unique: &[&[2]],
    options: r#"{"foreign_keys":{"up":"cascade"}}"#,
}];

const CIRCLE: &[Spec] = &[
    Spec {
        name: "a",
        sql: "b INTEGER REFERENCES b(id), k INTEGER UNIQUE",
        columns: &["b", "k"],
        keys: &[key(&[1], 1, &[0])],
        unique: &[&[2]],
        options: "",
    },
    Spec {
        name: "b",
        sql: "a INTEGER REFERENCES a(k), n INTEGER UNIQUE",
        columns: &["a", "n"],
        keys: &[key(&[1], 0, &[2])],
        unique: &[&[2]],
        options: "",
    },
    Spec {
        name: "leaf",
        sql: "a INTEGER REFERENCES a(id) ON DELETE CASCADE, v INTEGER",
        columns: &["a", "v"],
        keys: &[key(&[1], 0, &[0])],
        unique: &[],
        options: "",
    },
];

const COMPOSITE: &[Spec] = &[
    Spec {
        name: "p",
        sql: "g INTEGER, UNIQUE(g, id)",
        columns: &["g"],
        keys: &[],
        unique: &[],
        options: "",
    },
    Spec {
        name: "c",
        sql: "g INTEGER, p INTEGER, u INTEGER UNIQUE, FOREIGN KEY(p, g) REFERENCES p(id, g)",
        columns: &["g", "p", "u"],
        keys: &[key(&[2, 1], 0, &[0, 1])],
        unique: &[&[3]],
        options: "",
    },
];

/// A column that is set to NULL is unique, is referred to, and leads the rows of a tree, which are
/// set to NULL themselves.
const NULLS: &[Spec] = &[
    Spec {
        name: "p",
        sql: "v INTEGER UNIQUE, w INTEGER",
        columns: &["v", "w"],
        keys: &[],
        unique: &[&[1]],
        options: "",
    },
    Spec {
        name: "m",
        sql: "p INTEGER UNIQUE REFERENCES p(id) ON DELETE SET NULL, up INTEGER REFERENCES m(id)",
        columns: &["p", "up"],
        keys: &[null_key(&[1], 0, &[0]), null_key(&[2], 1, &[0])],
        unique: &[&[1]],
        options: r#"{"foreign_keys":{"up":"set_null"}}"#,
    },
    Spec {
        name: "l",
        sql: "m INTEGER REFERENCES m(p), v INTEGER",
        columns: &["m", "v"],
        keys: &[key(&[1], 1, &[1])],
        unique: &[],
        options: "",
    },
];

/// Rows of a tree refer to each other by a column that is set to NULL for want of another table's,
/// and a circle leads through one.
const NULLS_IN_CIRCLES: &[Spec] = &[
    Spec {
        name: "p",
        sql: "v INTEGER, g INTEGER, UNIQUE(g, v)",
        columns: &["v", "g"],
        keys: &[],
        unique: &[&[2, 1]],
        options: "",
    },
    Spec {
        name: "n",
        sql: "v INTEGER, g INTEGER, up INTEGER REFERENCES n(v), k INTEGER UNIQUE,
            UNIQUE(v), FOREIGN KEY(g, v) REFERENCES p(g, v) ON DELETE SET NULL",
        columns: &["v", "g", "up", "k"],
        keys: &[null_key(&[2, 1], 0, &[2, 1]), key(&[3], 1, &[1])],
        unique: &[&[1], &[4]],
        options: "",
    },
    Spec {
        name: "a",
        sql: "b INTEGER REFERENCES b(id) ON DELETE SET NULL, u INTEGER UNIQUE",
        columns: &["b", "u"],
        keys: &[null_key(&[1], 3, &[0])],
        unique: &[&[2]],
        options: "",
    },
    Spec {
        name: "b",
        sql: "a INTEGER REFERENCES a(u), n INTEGER REFERENCES n(k) ON DELETE SET NULL",
        columns: &["a", "n"],
        keys: &[key(&[1], 2, &[2]), null_key(&[2], 1, &[4])],
        unique: &[],
        options: "",
    },
];

pub(super) const SCHEMAS: [&[Spec]; 6] = [LAYERS, TREE, CIRCLE, COMPOSITE, NULLS, NULLS_IN_CIRCLES];
