//! Pages in a real browser, on a live node with miners, shares, forks, blocks and a peer: every link is followed, and
//! the browser logs no error. With `P2POOL_SCREENSHOTS=DIR` the pictures of `docs/pictures` are written there.

use serde_json::json;
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;
use test_support::{Browser, Job, Node, NodeBuilder, StratumClient, wait_until};

use crate::P2POOL;
use crate::shares::{Pool, network_file, own_address, solve_share, wpkh};

/// Time limit for a page to show an event.
const SHOWN_LIMIT: Duration = Duration::from_secs(30);

/// Worker whose name is markup: names are untrusted.
const NASTY: &str = "<img src=x onerror=alert(1)>";

/// Folder for the documentation's pictures, if requested.
fn pictures() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("P2POOL_SCREENSHOTS")?);
    std::fs::create_dir_all(&folder).expect("the pictures' folder can be made");
    Some(folder)
}

/// Node with all events that pages show, and a second one connected to it.
struct Stage {
    pool: Pool,
    _peer: Node,
    _miners: Vec<StratumClient>,
    payee: String,
    share: String,
    shares: usize,
}

impl Stage {
    fn set() -> Self {
        let pool = Pool::start(&[]);
        let peer = NodeBuilder::new(P2POOL, &pool.daemon)
            .network(&network_file("easy.toml"))
            .address(Some(&own_address().to_string()))
            .peer(pool.node.pool_address())
            .start();
        let weights = ["", "/0.00006", "/0.0001", "", "/0.00003"];
        let mut miners: Vec<_> =
            weights.iter().zip(1..).map(|(weight, seed)| pool.miner(&wpkh(seed), weight)).collect();
        let mut share = String::new();
        let mut shares = 0;
        for round in 0..46_usize {
            let which = [0, 1, 0, 2, 3, 1, 0, 4, 2, 0][round % 10];
            let jobs: Vec<_> = miners.iter().map(|miner| miner.client.job()).collect();
            // One of them solves an outdated job: a fork.
            let late = (round % 9 == 7).then(|| ((which + 1) % 5, solve_share(&jobs[(which + 1) % 5])));
            let is_block = round % 20 == 13;
            let solved = if is_block { jobs[which].solve_block() } else { solve_share(&jobs[which]) };
            let user = miners[which].user.clone();
            assert_eq!(miners[which].client.submit(&user, &solved), Ok(true));
            shares += 1;
            for (miner, old) in miners.iter_mut().zip(&jobs) {
                // A block causes two jobs, and only the second one counts.
                let is_next = |job: &Job| !is_block || job.previous_block_hash() == solved.hash;
                miner.client.wait_for_job(|job| job.clean && job.coinbase_start != old.coinbase_start && is_next(job));
            }
            if let Some((loser, solved)) = late {
                let user = miners[loser].user.clone();
                // Credited, but lost as a share.
                let _ = miners[loser].client.submit(&user, &solved);
                shares += 1;
            }
            share = solved.hash.to_string();
        }
        let nasty = format!("{}.{NASTY}", wpkh(1));
        let mut stranger = StratumClient::ready(pool.node.worker_port(), &nasty);
        let found = stranger.job().solve();
        let _ = stranger.submit(&nasty, &found);
        let _ = stranger.submit(&nasty, &found);
        let payee = wpkh(1).to_string();
        wait_until("the figures show it", SHOWN_LIMIT, || {
            let shown = pool.node.get(&format!("/api/v1/addresses/{payee}")).body;
            shown.contains("onerror") && pool.node.get("/api/v1/peers").body.contains("sub_version")
        });
        let _miners = miners.into_iter().map(|miner| miner.client).chain([stranger]).collect();
        Self { pool, _peer: peer, _miners, payee, share, shares }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.pool.node.worker_port())
    }

    /// Paths of all pages, with the text that each must show.
    fn pages(&self) -> Vec<(String, &'static str)> {
        vec![
            ("/".to_owned(), "Hash rate of the pool"),
            ("/sharechain".to_owned(), "Share versions"),
            (format!("/share/{}", self.share), "The block that it would be"),
            ("/miners".to_owned(), "rig"),
            (format!("/address/{}", self.payee), "Next share"),
            ("/payouts".to_owned(), "in all"),
            ("/blocks".to_owned(), "found here"),
            ("/graphs".to_owned(), "Graphs"),
            ("/peers".to_owned(), "p2pool"),
        ]
    }
}

/// Waits until a page is drawn.
fn wait_until_drawn(browser: &mut Browser, text: &str) {
    let has_text = format!("document.getElementById('main').innerText.includes({})", json!(text));
    browser.wait_for(&format!("{text:?} is shown"), &has_text);
}

#[test]
fn a_reader_goes_through_every_page_and_nothing_is_wrong() {
    let stage = Stage::set();
    let mut browser = Browser::start();

    // Each page, on a desktop and a phone, in light and dark mode.
    for (width, height, scheme) in [(1280, 900, "light"), (1280, 900, "dark"), (390, 844, "light"), (390, 844, "dark")]
    {
        browser.resize(width, height, width < 600);
        browser.prefer(scheme);
        for (path, text) in stage.pages() {
            browser.open(&stage.url(&path));
            wait_until_drawn(&mut browser, text);
            let wide = browser.evaluate("document.documentElement.scrollWidth").as_u64();
            assert!(wide <= Some(width.into()), "{path} is {wide:?} pixels wide on {width}");
            assert_eq!(browser.count("h1"), 1, "{path} has one heading");
            assert_eq!(browser.count("#merged, #merged-pay"), 0, "{path} has merged chains, and there are none");
            assert_eq!(browser.count("main, header, footer, nav"), 4, "{path} has its landmarks");
            let unnamed = "a:not([aria-label]):empty, button:not([aria-label]):empty, img:not([alt]), input:not([id])";
            assert_eq!(browser.count(unnamed), 0, "{path} has something without a name");
            let contrast = browser.evaluate(CONTRAST);
            assert_eq!(contrast, json!([]), "{path}, {scheme}: text that is hard to read");
        }
    }
    assert_eq!(browser.complaints(), &[] as &[String]);

    browser.resize(1280, 900, false);
    browser.prefer("light");
    numbers_are_as_people_read_them(&mut browser, &stage);
    names_are_only_names(&mut browser, &stage);
    the_drawing_can_be_walked_with_keys(&mut browser, &stage);
    an_address_is_looked_up(&mut browser, &stage);
    a_table_is_sorted(&mut browser, &stage);
    a_graph_is_zoomed(&mut browser, &stage);
    a_page_follows_what_happens(&mut browser, &stage);
    every_link_leads_somewhere(&mut browser, &stage);
    what_is_not_there_is_told(&mut browser, &stage);
    if let Some(folder) = pictures() {
        take_pictures(&mut browser, &stage, &folder);
    }
}

/// Labels of plots outside of their drawing.
const CUT_OFF: &str = "[...document.querySelectorAll('.plot svg text')].filter((text) => {
  const [one, all] = [text.getBoundingClientRect(), text.closest('svg').getBoundingClientRect()];
  return one.left < all.left - 0.5 || one.right > all.right + 0.5;
}).map((text) => text.textContent)";

#[test]
fn graphs_open_on_the_range_that_has_data_and_their_labels_fit() {
    let demo = NodeBuilder::demo(P2POOL).start();
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", demo.worker_port());
    let mut browser = Browser::start();
    for (width, height) in [(1280, 900), (390, 844)] {
        browser.resize(width, height, width < 600);
        browser.open(&url("/graphs"));
        browser.wait_for("payouts are drawn", "document.querySelector('[data-key=current_payouts] .plot svg path')");
        assert_eq!(browser.text(".tools [aria-pressed=true]"), "Hour", "the demo runs for minutes");
        assert_eq!(browser.evaluate(CUT_OFF), json!([]), "{width} pixels");
    }
    if let Some(folder) = pictures() {
        std::fs::write(folder.join("graphs.png"), browser.picture()).expect("a picture can be written");
    }
    browser.open(&url("/graphs?view=last_week"));
    browser.wait_for(
        "what the reader chose",
        "document.querySelector('.tools [aria-pressed=true]')?.innerText === 'Week'",
    );
    browser.open(&url("/"));
    browser.wait_for(
        "the small line",
        "document.querySelector('.spark svg')?.getAttribute('aria-label').endsWith('hour')",
    );
    the_shortest_range_that_covers_the_data_is_chosen(&mut browser);
    amounts_of_any_size_fit(&mut browser);
    assert_eq!(browser.complaints(), &[] as &[String]);
}

fn the_shortest_range_that_covers_the_data_is_chosen(browser: &mut Browser) {
    // Binned as by the node: for each age of the oldest value, all values since.
    let chosen = browser.evaluate(
        "import('/assets/range.js').then(({ covering }) => {
          const now = 1e9 + 12345;
          const views = [['hour', 24, 150], ['day', 288, 300], ['week', 2016, 300], ['month', 8640, 300], ['year', 105192, 300]]
            .map(([view, bin_seconds, bins]) => ({ view, bin_seconds, seconds: bin_seconds * bins }));
          const graph = (age) => ({ bin_seconds, seconds }) => {
            const times = Array.from({ length: seconds / bin_seconds }, (_, at) => (Math.floor(now / bin_seconds) - at + 0.5) * bin_seconds);
            const values = times.map((time) => (age !== null && time + bin_seconds / 2 > now - age ? 1 : null));
            return { bin_seconds, times, series: [{ values }] };
          };
          return [null, 0, 600, 3500, 4000, 20 * 3600, 26 * 3600, 6 * 86400, 20 * 86400, 50 * 86400, 5e8]
            .map((age) => covering(views, views.map(graph(age)), now));
        })",
    );
    let expected = json!(["hour", "hour", "hour", "hour", "day", "day", "week", "week", "month", "year", "year"]);
    assert_eq!(chosen, expected);
}

fn amounts_of_any_size_fit(browser: &mut Browser) {
    // In one call, before the page redraws.
    let script = "import('/assets/plot.js').then(({ axisLabels, plot, ticks }) => {
      const box = document.createElement('div');
      box.style.width = '352px';
      document.getElementById('main').replaceChildren(box);
      box.append(...[1, 3, 2500, 125000, 314123456, 6.25e10, 2.1e15].flatMap((highest, at) => ['satoshi', 'H/s', 'B', ''].map((unit) =>
        plot({ times: [100, 200], series: [{ name: '', values: [0, highest] }], unit, bin_seconds: 100 }, { from: 0, to: 86400, width: 352, label: '', id: `${at}${unit[0]}` }))));
      const labels = [4, 2500, 314123456, 6.25e10].map((most) => axisLabels(ticks(most), 'satoshi'));
      return [labels, box.querySelectorAll('svg text').length > 200, CUT_OFF];
    })";
    let labels = json!([
        ["0", "0.00000001", "0.00000002", "0.00000003", "0.00000004"],
        ["0", "0.00001", "0.00002", "0.00003"],
        ["0", "1", "2", "3", "4"],
        ["0", "200", "400", "600", "800"],
    ]);
    assert_eq!(browser.evaluate(&script.replace("CUT_OFF", CUT_OFF)), json!([labels, true, []]));
}

/// Elements whose text has a contrast below 4.5 to its background (WCAG AA), as far as colours are plain.
const CONTRAST: &str = r"(() => {
  const parse = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !element.checkVisibility() || element.closest('.hint, .skip, svg, [disabled], noscript')) continue;
    const [one, other] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) bad.push(`${walk.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
  }
  return bad;
})()";

fn numbers_are_as_people_read_them(browser: &mut Browser, stage: &Stage) {
    browser.open(&stage.url("/"));
    let told = browser.evaluate(
        "import('/assets/format.js').then((f) => [f.duration(0.4), f.duration(59), f.duration(3 * 3600 + 720), f.duration(86400), \
         f.rate(0), f.rate(1.31e16), f.rate(999.9), f.rate(null), f.difficulty(0.000244), f.difficulty(5.1e6), f.coins(314123456, 'BTC'), \
         f.percent(0.0621), f.shortHash('0000000abcdef0123456789'), f.count(1234567)].map((text) => text.replaceAll(/[\\u00a0\\u202f]/g, ' ')))",
    );
    let expected = json!([
        "under 1 s",
        "59 s",
        "3 h 12 min",
        "1 day",
        "0.00 H/s",
        "13.1 PH/s",
        "1.00 kH/s",
        "–",
        "0.000244",
        "5.10 M",
        "3.14123456 BTC",
        "6.2 %",
        "…abcdef01",
        "1 234 567"
    ]);
    assert_eq!(told, expected);
    // Two forks of one share have separate lanes, and descendants of a fork stay in its lane.
    let lanes = browser.evaluate(
        "import('/assets/chain.js').then(({lanes}) => { const share = (hash, parent, height, is_best) => ({hash, parent, height, is_best, time: height}); \
         return [...lanes([share('a', null, 1, true), share('b', 'a', 2, true), share('c', 'a', 2, false), share('d', 'a', 2, false), \
         share('e', 'd', 3, false), share('f', 'b', 3, true)])].sort(); })",
    );
    assert_eq!(lanes, json!([["a", 0], ["b", 0], ["c", 1], ["d", -1], ["e", -1], ["f", 0]]));
}

fn names_are_only_names(browser: &mut Browser, stage: &Stage) {
    for path in ["/miners".to_owned(), format!("/address/{}", stage.payee)] {
        browser.open(&stage.url(&path));
        wait_until_drawn(browser, "onerror=alert(1)");
        assert_eq!(browser.count("main img"), 0, "a stranger's name became markup on {path}");
    }
    assert_eq!(browser.complaints(), &[] as &[String]);
}

fn the_drawing_can_be_walked_with_keys(browser: &mut Browser, stage: &Stage) {
    browser.open(&stage.url("/sharechain"));
    browser.wait_for("the drawing is there", "document.querySelectorAll('.chain a.share').length > 40");
    assert!(browser.count(".chain a.share") >= u64::try_from(stage.shares).unwrap_or(u64::MAX), "forks are drawn, too");
    assert!(browser.count(".chain a.share.is-stray") >= 3, "there are forks");
    assert!(browser.count(".chain a.share .block") >= 2, "there are blocks");
    assert_eq!(browser.count(".chain a.share[tabindex='0']"), 1, "one stop of the tab key for all shares");
    browser.evaluate("document.querySelector('.chain a.share[tabindex=\"0\"]').focus()");
    let focused = "document.activeElement.dataset.hash";
    let tip = browser.evaluate(focused);
    browser.press("ArrowLeft");
    let parent = browser.evaluate(focused);
    assert_ne!(tip, parent);
    assert_eq!(browser.evaluate("document.querySelector('.chain .hint').hidden"), json!(false), "the hint is shown");
    browser.press("ArrowRight");
    assert_eq!(browser.evaluate(focused), tip);
    browser.press("Home");
    assert_ne!(browser.evaluate(focused), tip);
    browser.press("End");
    assert_eq!(browser.evaluate(focused), tip);
    browser.press("Enter");
    browser.wait_for("the share's page", &format!("location.pathname === '/share/' + {tip}"));
    wait_until_drawn(browser, "Its lineage");
    // From the skip link on, the first keys move into the content.
    browser.open(&stage.url("/"));
    wait_until_drawn(browser, "Sharechain");
    browser.press("Tab");
    assert_eq!(browser.evaluate("document.activeElement.className"), json!("skip"));
    browser.press("Enter");
    assert_eq!(browser.evaluate("document.activeElement.id"), json!("main"));
}

fn an_address_is_looked_up(browser: &mut Browser, stage: &Stage) {
    browser.open(&stage.url("/"));
    browser.click("#find-text");
    browser.write(&stage.payee);
    browser.press("Enter");
    browser.wait_for("the address' page", &format!("location.pathname === '/address/{}'", stage.payee));
    wait_until_drawn(browser, "Its newest shares");
    let text = browser.text("#main");
    for part in
        ["Hash rate", "The next block would pay", "Next share", "Refused submissions", "sent twice", "Stale shares"]
    {
        assert!(text.contains(part), "nothing about {part:?} in:\n{text}");
    }
    browser.open(&stage.url("/"));
    browser.click("#find-text");
    browser.write(&stage.share);
    browser.press("Enter");
    browser.wait_for("the share's page", &format!("location.pathname === '/share/{}'", stage.share));
}

fn a_table_is_sorted(browser: &mut Browser, stage: &Stage) {
    browser.open(&stage.url("/payouts"));
    wait_until_drawn(browser, "in all");
    let first = "document.querySelector('tbody td').innerText";
    assert_eq!(browser.evaluate(first), json!("1"));
    browser.click("thead th:first-child button");
    browser.click("thead th:first-child button");
    let sorted = browser
        .evaluate("[...document.querySelectorAll('tbody tr td:first-child')].map((cell) => Number(cell.innerText))");
    let ranks: Vec<i64> = serde_json::from_value(sorted).expect("ranks are numbers");
    assert!(ranks.is_sorted(), "{ranks:?}");
    assert_eq!(browser.evaluate("document.querySelector('thead th').getAttribute('aria-sort')"), json!("ascending"));
}

fn a_graph_is_zoomed(browser: &mut Browser, stage: &Stage) {
    browser.open(&stage.url("/graphs?view=last_day"));
    browser.wait_for("a graph is drawn", "document.querySelector('.plot svg')");
    let shown = "document.querySelector('.tools [role=status]').innerText";
    let whole = browser.evaluate(shown);
    browser.drag(".plot", 0.4, 0.7);
    browser.wait_for("it is zoomed", &format!("{shown} !== {whole}"));
    browser.press("Escape");
    browser.wait_for("all of it is back", "document.querySelector('.tools [aria-pressed=true]')");
    browser.click(".tools .group:nth-child(1) button:first-child");
    browser.wait_for("the last hour", "location.search === '?view=last_hour'");
    browser.point_at(".plot");
    browser.wait_for("the cross reads a value", "!document.querySelector('.plot .hint').hidden");
    browser.click("details > summary");
    browser.wait_for("the table is open", "document.querySelector('details[open] table')");
}

fn a_page_follows_what_happens(browser: &mut Browser, stage: &Stage) {
    browser.open(&stage.url("/"));
    wait_until_drawn(browser, "Newest share");
    browser.wait_for("events come", "document.getElementById('live').innerText === 'Live'");
    let before = browser.evaluate("document.querySelector('.chain .view').dataset.last");
    stage.pool.miner(&wpkh(7), "").mine_share();
    browser.wait_for(
        "the new share is drawn",
        &format!("document.querySelector('.chain .view').dataset.last !== {before}"),
    );
}

/// Follows every link from the first page on: pages are drawn, other links must exist.
fn every_link_leads_somewhere(browser: &mut Browser, stage: &Stage) {
    let mut waiting = VecDeque::from([("/".to_owned(), String::new())]);
    let mut known = BTreeSet::from(["/".to_owned()]);
    let (mut shares, mut addresses) = (0, 0);
    while let Some((path, from)) = waiting.pop_front() {
        // All shares' pages are one page, and so are all addresses'.
        let of_many = match path.split('/').nth(1) {
            Some("share") => Some(&mut shares),
            Some("address") => Some(&mut addresses),
            _ => None,
        };
        if let Some(seen) = of_many {
            *seen += 1;
            if *seen > 6 {
                continue;
            }
        }
        let answer = stage.pool.node.get(&path);
        assert_eq!(answer.status, 200, "{from} links to {path}: {answer:?}");
        if !answer.body.starts_with("<!doctype html>") {
            continue;
        }
        browser.open(&stage.url(&path));
        browser
            .wait_for(&format!("{path} is drawn"), "document.querySelector('#main .card, #main .tiles, #main .state')");
        let links = browser.evaluate(
            "[...document.querySelectorAll('a[href]')].filter((a) => a.origin === location.origin).map((a) => a.pathname + a.search)",
        );
        for link in links.as_array().into_iter().flatten().filter_map(|link| link.as_str()) {
            if known.insert(link.to_owned()) {
                waiting.push_back((link.to_owned(), path.clone()));
            }
        }
    }
    assert!(known.len() > 20, "only {known:?}");
    assert_eq!(browser.complaints(), &[] as &[String]);
}

fn what_is_not_there_is_told(browser: &mut Browser, stage: &Stage) {
    for (path, text) in [
        (format!("/share/{}", "0".repeat(63) + "1"), "does not have this share"),
        (format!("/address/{}", wpkh(99)), "Nothing known of this address"),
        ("/nowhere".to_owned(), "There is no such page"),
        ("/address/%3Cscript%3Ealert(1)%3C%2Fscript%3E".to_owned(), "Nothing known of this address"),
    ] {
        browser.open(&stage.url(&path));
        wait_until_drawn(browser, text);
    }
    // The browser logs only the expected missing responses.
    let others: Vec<&String> = browser.complaints().iter().filter(|told| !told.contains("404")).collect();
    assert!(others.is_empty(), "{others:?}");
}

fn take_pictures(browser: &mut Browser, stage: &Stage, folder: &std::path::Path) {
    for (name, path, width, height, scheme) in [
        ("overview", "/".to_owned(), 1280, 1000, "light"),
        ("sharechain", "/sharechain".to_owned(), 1280, 800, "dark"),
        ("address", format!("/address/{}", stage.payee), 1280, 900, "light"),
        ("phone", "/".to_owned(), 390, 844, "dark"),
    ] {
        browser.resize(width, height, width < 600);
        browser.prefer(scheme);
        browser.open(&stage.url(&path));
        browser.wait_for("it is drawn", "document.querySelector('#main .card')");
        // The font and the first events.
        std::thread::sleep(Duration::from_secs(2));
        std::fs::write(folder.join(format!("{name}.png")), browser.picture()).expect("a picture can be written");
    }
}
