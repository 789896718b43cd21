//! `p2pool top`: live view of a running node in the terminal, over its control socket.

mod merged;
mod page;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::runtime::clock::unix_now;
use crate::view::control::Request;
use crate::view::control::answers::Overview;
use crate::view::control::client::{self, ControlError};
use page::{Panel, Shown};

/// Poll interval of the key reader, and the time it takes to stop.
const KEY_WAIT: Duration = Duration::from_millis(200);

/// Capacity of the key queue.
const KEYS_MAX: usize = 64;

/// Size of the page without a terminal: columns and lines.
const PLAIN_SIZE: (u16, u16) = (120, 50);

/// Node to show, and form of the output.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Data directory of the node's network.
    pub data_dir: PathBuf,
    /// Refresh interval.
    pub interval: Duration,
    /// Set to print JSON once.
    pub json: bool,
    /// Set to print the page once.
    pub once: bool,
}

/// Shows the node until the operator quits.
///
/// # Errors
/// If no node runs, or the terminal cannot be used.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let first = ask(&config.data_dir).await?;
    if config.json {
        println!("{:#}", serde_json::to_value(&first)?);
        return Ok(());
    }
    if config.once || !io::stdout().is_terminal() {
        io::stdout().write_all(plain(&first)?.as_bytes())?;
        return Ok(());
    }
    // Also restores the terminal on a panic.
    let mut terminal = ratatui::try_init()?;
    let left = live(config, first, &mut terminal).await;
    ratatui::restore();
    left
}

async fn ask(data_dir: &Path) -> Result<Overview, ControlError> {
    client::ask_for(data_dir, &Request::Overview).await
}

/// Renders the page as text.
fn plain(overview: &Overview) -> anyhow::Result<String> {
    let mut terminal = Terminal::new(TestBackend::new(PLAIN_SIZE.0, PLAIN_SIZE.1))?;
    let shown = Shown::default();
    terminal.draw(|frame| page::draw(frame, overview, &shown, unix_now()))?;
    let buffer = terminal.backend().buffer();
    let width = usize::from(PLAIN_SIZE.0);
    let mut text = String::new();
    for line in buffer.content().chunks(width) {
        let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Ok(text)
}

async fn live(config: &Config, first: Overview, terminal: &mut ratatui::DefaultTerminal) -> anyhow::Result<()> {
    let (mut keys, _ending) = keys();
    let mut overview = first;
    let mut shown = Shown::default();
    let mut ticks = tokio::time::interval(config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        terminal.draw(|frame| page::draw(frame, &overview, &shown, unix_now()))?;
        tokio::select! {
            _ = ticks.tick() => match ask(&config.data_dir).await {
                Ok(fresh) => {
                    overview = fresh;
                    shown.lost = None;
                }
                // The node may be restarting.
                Err(error) => shown.lost = Some(error.to_string()),
            },
            key = keys.recv() => match key {
                Some(Some(key)) => if act(key, &mut shown) { return Ok(()) },
                // Resized: redraw.
                Some(None) => {}
                None => return Ok(()),
            },
        }
    }
}

/// Handles a key; returns true to quit.
fn act(key: KeyEvent, shown: &mut Shown) -> bool {
    match key.code {
        KeyCode::Char('q') => return true,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Esc | KeyCode::Char('0') => shown.show(None),
        KeyCode::Char('1') => shown.show(Some(Panel::Miners)),
        KeyCode::Char('2') => shown.show(Some(Panel::Shares)),
        KeyCode::Char('3') => shown.show(Some(Panel::Peers)),
        KeyCode::Char('4') => shown.show(Some(Panel::Blocks)),
        KeyCode::Char('5') => shown.show(Some(Panel::Log)),
        KeyCode::Tab => shown.show_next(),
        KeyCode::Down | KeyCode::Char('j') => shown.scroll = shown.scroll.saturating_add(1),
        KeyCode::Up | KeyCode::Char('k') => shown.scroll = shown.scroll.saturating_sub(1),
        KeyCode::PageDown => shown.scroll = shown.scroll.saturating_add(20),
        KeyCode::PageUp => shown.scroll = shown.scroll.saturating_sub(20),
        KeyCode::Home => shown.scroll = 0,
        _ => {}
    }
    false
}

/// Stops the key reader when dropped.
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts a thread that reads keys, since reading blocks. `None` stands for a resize.
fn keys() -> (mpsc::Receiver<Option<KeyEvent>>, Ending) {
    let (sender, keys) = mpsc::channel(KEYS_MAX);
    let is_ending = Arc::new(AtomicBool::new(false));
    let ending = Ending(is_ending.clone());
    std::thread::spawn(move || {
        while !is_ending.load(Ordering::Relaxed) {
            match event::poll(KEY_WAIT) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(_) => return,
            }
            let input = match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Some(key),
                Ok(Event::Resize(..)) => None,
                Ok(_) => continue,
                Err(_) => return,
            };
            if sender.blocking_send(input).is_err() {
                return;
            }
        }
    });
    (keys, ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    #[test]
    fn keys_choose_a_panel_scroll_it_and_leave() {
        let mut shown = Shown::default();
        assert!(!act(press(KeyCode::Char('3')), &mut shown));
        assert_eq!(shown.panel, Some(Panel::Peers));
        act(press(KeyCode::Down), &mut shown);
        act(press(KeyCode::PageDown), &mut shown);
        act(press(KeyCode::Up), &mut shown);
        assert_eq!(shown.scroll, 20);
        act(press(KeyCode::Tab), &mut shown);
        assert_eq!((shown.panel, shown.scroll), (Some(Panel::Blocks), 0));
        act(press(KeyCode::Tab), &mut shown);
        act(press(KeyCode::Tab), &mut shown);
        assert_eq!(shown.panel, None);
        assert!(act(press(KeyCode::Char('q')), &mut shown));
        assert!(act(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), &mut shown));
    }

    #[test]
    fn an_empty_node_has_a_page() {
        let text = plain(&Overview::default()).unwrap();
        assert_eq!(text.lines().count(), usize::from(PLAIN_SIZE.1));
        assert!(text.contains("Miners") && text.contains("Log"), "{text}");
    }
}
