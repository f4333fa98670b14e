//! docs/datasets.md shows the table that the code has.

use cytomask_datasets::markdown_table;

const START: &str = "<!-- table -->\n";
const END: &str = "<!-- end -->";

#[test]
fn the_documented_table_is_the_codes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/datasets.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(START).expect("the table's start is marked");
    let (found, after) = rest.split_once(END).expect("the table's end is marked");
    let table = markdown_table();
    if std::env::var_os("CYTOMASK_BLESS").is_some() {
        std::fs::write(path, format!("{before}{START}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(found, table, "run with CYTOMASK_BLESS=1 to write the table anew");
    }
    assert_eq!(table.lines().filter(|line| line.starts_with("| `")).count(), 36);
}
