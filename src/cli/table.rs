//! Rows as aligned columns.

/// One line a row, columns two blanks apart; the first `left` of them begin together, the others end together.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]], left: usize) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let cell = |(column, (cell, width)): (usize, (&String, &usize))| {
        let width = *width;
        if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    };
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(&widths).enumerate().map(cell).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
