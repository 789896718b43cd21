//! Merged chains on the page: a line for each.

use ratatui::layout::{Alignment, Constraint};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table};

use crate::view::control::words::{printable, short_number, span};
use crate::view::http::api::{Merged, MergedChain};

/// One in so many of the screen's lines may be about merged chains.
const PART: u16 = 4;

/// Characters of a payee shown at each end.
const PAYEE_END: usize = 10;

/// Height of the lines on a screen of `lines`; none without merged chains.
pub(super) fn height(merged: &Merged, lines: u16) -> u16 {
    let chains = u16::try_from(merged.chains.len()).unwrap_or(u16::MAX);
    match chains {
        0 => 0,
        // A head, and one chain at least.
        chains => chains.saturating_add(1).min((lines / PART).max(2)),
    }
}

/// Lines of the chains, with ages as of `now`. Where not all fit, those with trouble come first, and the last line
/// counts the others.
pub(super) fn lines(merged: &Merged, height: u16, now: f64) -> Table<'static> {
    let room = usize::from(height.saturating_sub(1));
    let mut chains: Vec<&MergedChain> = merged.chains.iter().collect();
    let left_out = if chains.len() > room {
        chains.sort_by_key(|chain| chain.state == "mining" && chain.trouble.is_none());
        chains.split_off(room.saturating_sub(1)).len()
    } else {
        0
    };
    let mut rows: Vec<Row<'static>> = chains.into_iter().map(|chain| line(chain, now)).collect();
    if left_out > 0 {
        rows.push(Row::new([Cell::from(format!("{left_out} more")).dim()]));
    }
    let head = ["merged", "state", "height", "diff.", "work", "blocks", "pays the operator at"];
    let widths = [10, 8, 8, 8, 11, 6].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    Table::new(rows, widths).header(Row::new(head.map(Cell::from)).dim())
}

fn line(chain: &MergedChain, now: f64) -> Row<'static> {
    let right = |text: String| Cell::from(Line::from(text).alignment(Alignment::Right));
    let unknown = || "-".to_owned();
    let color = match (&chain.state[..], &chain.trouble) {
        ("mining", None) => Color::Green,
        ("left_out", _) => Color::Red,
        _ => Color::Yellow,
    };
    // A failure matters more than where the coins would go.
    let last = match &chain.trouble {
        Some(trouble) => Cell::from(printable(trouble)).style(Style::new().fg(color)),
        None => Cell::from(brief(&printable(&chain.payee))),
    };
    Row::new([
        Cell::from(printable(&chain.name)),
        Cell::from(printable(&chain.state).replace('_', " ")).style(Style::new().fg(color)),
        right(chain.height.map_or_else(unknown, |height| height.to_string())),
        right(chain.difficulty.map_or_else(unknown, short_number)),
        right(chain.work_since.map_or_else(unknown, |since| span(now - since))),
        right(chain.found.to_string()),
        last,
    ])
}

/// Shortens an address to both ends.
fn brief(payee: &str) -> String {
    let letters: Vec<char> = payee.chars().collect();
    if letters.len() <= 2 * PAYEE_END + 1 {
        return payee.to_owned();
    }
    let (begin, end) = (&letters[..PAYEE_END], &letters[letters.len() - PAYEE_END..]);
    begin.iter().chain(&['\u{2026}']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn chain(name: &str, state: &str, trouble: Option<&str>) -> MergedChain {
        MergedChain {
            name: name.into(),
            state: state.into(),
            payee: "DH5yaieqoZN36fDVciNyRueRGvGLR3mr7L".into(),
            height: Some(5_123_456),
            difficulty: Some(21.3e6),
            work_since: Some(100.0),
            found: 12,
            trouble: trouble.map(str::to_owned),
            ..MergedChain::default()
        }
    }

    fn drawn(merged: &Merged, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(80, height)).unwrap();
        terminal.draw(|frame| frame.render_widget(lines(merged, height, 3699.0), frame.area())).unwrap();
        let cells = terminal.backend().buffer().content();
        cells.chunks(80).map(|line| line.iter().map(|cell| cell.symbol()).collect()).collect()
    }

    #[test]
    fn a_chains_line_fits_eighty_columns_with_who_is_paid() {
        let trouble = "its daemon does not answer\u{1b}[2J";
        let chains = vec![chain("dogecoin", "mining", None), chain("namecoin", "left_out", Some(trouble))];
        let merged = Merged { chains, ..Merged::default() };
        assert_eq!(height(&merged, 24), 3);
        let lines = drawn(&merged, 3);
        assert_eq!(
            lines[1].trim_end(),
            "dogecoin   mining    5123456   21.3 M 59 min 59 s     12 DH5yaieqoZ\u{2026}GvGLR3mr7L"
        );
        assert!(lines[0].ends_with("pays the operator at   "), "{lines:?}");
        assert!(lines[2].contains("left out") && lines[2].contains("its daemon does not"), "{lines:?}");
        assert!(!lines.concat().contains('\u{1b}'));
    }

    #[test]
    fn chains_with_trouble_come_first_where_not_all_fit() {
        let mut chains = vec![chain("good", "mining", None); 14];
        chains.push(chain("bad", "left_out", None));
        chains.push(chain("easy", "mining", Some("its target is too easy")));
        let merged = Merged { chains, ..Merged::default() };
        assert_eq!((height(&merged, 24), height(&merged, 200), height(&merged, 0)), (6, 17, 2));
        let lines = drawn(&merged, 6);
        let begins: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(begins, ["merged", "bad", "easy", "good", "good", "12"]);
        assert_eq!(height(&Merged::default(), 24), 0);
    }
}
