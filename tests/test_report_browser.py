"""The page of scripts/report.py in a headless Chromium: from disk, without a network, in light, dark, at phone width, printed."""
import io

import pytest
from PIL import Image

import browser
from test_report import fill, report, write_csv
from test_report_sweep import COLUMNS, GAIN, sweep

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page():
    program = browser.find()
    if not program:
        pytest.fail("no browser: scripts/setup.sh browser installs one", pytrace=False)
    with browser.Page(program) as found:
        yield found


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A report of sweeps over two grids, logs, statistics and weights."""
    folder = fill(tmp_path_factory.mktemp("report"))
    rows = [dict(model=model, **row) for model in GAIN for grid in ("per tensor", "per channel") for row in sweep(model, grid)]
    write_csv(folder / "grids.csv", ["model", *COLUMNS], rows)
    result = report(folder, "grids.csv", "control.log.csv", "kure.log.csv", "control.stats.csv", "kure.stats.csv", "kure=net.cfg,kure.weights", "-o", "a.html")
    assert result.returncode == 0, result.stderr
    return (folder / "a.html").as_uri()


# Of every plot: width and height in CSS pixels, how much is drawn in it, what it is called
PLOTS = """[...document.querySelectorAll('figure > svg')].map(svg => ({width: svg.getBoundingClientRect().width, height: svg.getBoundingClientRect().height,
    drawn: [...svg.querySelectorAll('path, use')].filter(e => e.getBoundingClientRect().width + e.getBoundingClientRect().height > 0).length,
    outside: [...svg.querySelectorAll('text')].filter(e => e.getBoundingClientRect().right > svg.getBoundingClientRect().right + 1
        || e.getBoundingClientRect().left < svg.getBoundingClientRect().left - 1).map(e => e.textContent),
    name: svg.getAttribute('aria-label'), role: svg.getAttribute('role'), rows: svg.parentElement.querySelectorAll('tbody tr').length}))"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def colours(png):
    """{colour: share of the pixels}"""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    return {colour: count / (image.width * image.height) for count, colour in image.getcolors(1 << 24)}


@pytest.mark.parametrize("width", (1280, 390))
@pytest.mark.parametrize("scheme", ("light", "dark"))
def test_every_plot_is_drawn(page, url, width, scheme):
    page.colours(scheme)
    page.open(url, width)
    plots = page.evaluate(PLOTS)
    assert len(plots) == 2 * 6 + 1 + 1 + 3 + 2
    for plot in plots:
        assert plot["width"] > 250 and plot["height"] > 100 and plot["drawn"] > 10 and plot["rows"] >= 1, plot
        assert plot["role"] == "img" and plot["name"] and plot["outside"] == [], plot
    assert page.evaluate(OVERFLOW) == 0
    shares = colours(page.screenshot())
    paper = max(shares, key=shares.get)
    assert len(shares) > 50 and 0.5 < shares[paper] < 0.995 and (sum(paper) > 600) == (scheme == "light")
    assert page.complaints() == [] and page.requests() == [url]


def test_models_differ_in_more_than_colour(page, url):
    page.open(url, 1280)
    lines = page.evaluate("""[...document.querySelectorAll('figure > svg')].slice(2, 4).map(svg => [...svg.querySelectorAll('path')]
        .filter(e => /--series-[12]/.test(e.getAttribute('style')) && /stroke-width: 1.8/.test(e.getAttribute('style')))
        .map(e => getComputedStyle(e).strokeDasharray))""")
    for dashes in lines:
        assert len(dashes) == len(set(dashes)) == 2, lines


def test_printed(page, url):
    page.open(url, 1280)
    closed = "document.querySelectorAll('details:not([open])').length"
    assert page.evaluate(closed) == page.evaluate("document.querySelectorAll('details').length") > 0
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF-") and pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page/") >= 3 and len(pdf) > 50000
    assert page.evaluate(closed) == 0 and page.complaints() == []


def test_open_numbers_do_not_overflow(page, url):
    page.open(url, 390)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate(OVERFLOW) == 0
    assert page.evaluate("[...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().height < 10).length") == 0


def test_faults_would_be_seen(page, tmp_path):
    """The checks above, on a page that has every fault."""
    (tmp_path / "bad.html").write_text("<img src=absent.png><div style='width:3000px'>x</div><script>console.error('a'); undefinedName()</script>")
    page.open((tmp_path / "bad.html").as_uri(), 1280)
    assert page.evaluate(OVERFLOW) > 1000 and len(page.requests()) == 2 and len(page.complaints()) >= 3
    (tmp_path / "empty.html").write_text("<p>")
    page.open((tmp_path / "empty.html").as_uri(), 1280)
    assert len(colours(page.screenshot())) == 1 and page.evaluate(PLOTS) == []
