//! CSV tables of images and their labels: what comparing and training read alike.

use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind};

/// A table with the columns `image` and `labels`, and others its reader asks for. Fields cannot hold commas or quotes.
pub(crate) struct ImageTable<'p> {
    path: &'p Path,
    text: String,
    columns: Vec<String>,
}

/// One line of it.
pub(crate) struct Row<'t> {
    /// From 1, the header included.
    pub(crate) line: usize,
    pub(crate) image: PathBuf,
    pub(crate) labels: PathBuf,
    fields: Vec<&'t str>,
}

impl<'p> ImageTable<'p> {
    /// # Errors
    /// `Setting` when the file cannot be read or lacks one of the two columns.
    pub(crate) fn open(path: &'p Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::new(ErrorKind::Setting, format!("{}: {error}", path.display())))?;
        let mut table = Self { path, text, columns: Vec::new() };
        let (_, header) = table
            .lines()
            .next()
            .ok_or_else(|| table.wrong(1, "expected a header with image and labels, found nothing"))?;
        table.columns = header.split(',').map(|name| name.trim().to_owned()).collect();
        for name in ["image", "labels"] {
            if table.column(name).is_none() {
                let found = table.columns.join(", ");
                return Err(table.wrong(1, format!("expected a column {name:?}, found {found}")));
            }
        }
        Ok(table)
    }

    /// Where a column is.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// The images in order, each with the error of its line where it has one. Paths are relative to the table's folder.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Result<Row<'_>, Error>> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let (image, labels) = (self.column("image"), self.column("labels"));
        self.lines().skip(1).map(move |(line, text)| {
            if text.contains('"') {
                return Err(self.wrong(line, "quoted fields are not read; rename files with commas"));
            }
            let fields: Vec<&str> = text.split(',').map(str::trim).collect();
            let path = |at: Option<usize>| {
                at.and_then(|at| fields.get(at)).filter(|field| !field.is_empty()).map(|field| folder.join(field))
            };
            match (path(image), path(labels)) {
                (Some(image), Some(labels)) if fields.len() == self.columns.len() => {
                    Ok(Row { line, image, labels, fields })
                }
                _ => Err(self.wrong(line, format!("expected {} fields, found {text:?}", self.columns.len()))),
            }
        })
    }

    /// An error that names file and line.
    pub(crate) fn wrong(&self, line: usize, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Setting, format!("{}, line {line}: {what}", self.path.display()))
    }

    /// Lines with something on them, numbered from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let text = self.text.trim_start_matches('\u{feff}');
        (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty())
    }
}

impl Row<'_> {
    /// What stands in a column; empty where the table has no such column.
    pub(crate) fn field(&self, column: Option<usize>) -> &str {
        column.map_or("", |at| self.fields[at])
    }
}
