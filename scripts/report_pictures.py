"""report_pictures.py: images with the boxes that networks find on them side by side, for report.py.

The image is embedded once, the boxes are drawn over it as SVG: sharp on paper, and told apart by line and word as well as by
colour. report_boxes.py says which boxes are kept, missing and new.

Test: tests/test_report_boxes.py
"""
import base64
import html
import io
import itertools
import math
import statistics

from report_boxes import Box, Change, Data, Detections, changes, compare, most_changed, pairs, shown
from report_files import show
from report_page import Table, html_table

MOST_EDGE = 720  # pixels of an embedded image
LOSSLESS = 160 * 160  # pixels up to which it is embedded without loss
PICTURES = 4  # where none are chosen
LETTERS = 26  # text as high as a letter of so many in the width of a picture
THRESHOLD = 0.25  # as kure eval


def embedded(picture) -> str:
    """A data: URI of at most MOST_EDGE pixels a side"""
    small, out = picture.copy(), io.BytesIO()
    small.thumbnail((MOST_EDGE, MOST_EDGE))
    kind = "png" if small.width * small.height <= LOSSLESS else "jpeg"
    small.save(out, kind, **({"optimize": True} if kind == "png" else {"quality": 85}))
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"


def place(box: Box, kind: str, width: float, letter: float, size: tuple[int, int], taken: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Left end and base line of a text at a corner of its box, from above or, of a true box, from below: the first of the places that no
    other text has, or the least crowded one"""
    best = (math.inf, 0.0, 0.0)
    lines = (box.y - 0.3 * letter, box.y + letter, box.y + box.height - 0.3 * letter, box.y + box.height + 0.95 * letter)
    for y, x in itertools.product(lines[::-1] if kind == "truth" else lines, (box.x + 0.2 * letter, box.x + box.width - width - 0.2 * letter)):
        x, y = min(max(x, 0.1 * letter), max(0.1 * letter, size[0] - width)), min(max(y, 0.95 * letter), size[1] - 0.25 * letter)
        covered = sum(max(0.0, min(x + width, b[0] + b[2]) - max(x, b[0])) * max(0.0, letter - abs(y - b[1])) for b in taken)
        best = min(best, (covered, x, y), key=lambda found: found[0])
    taken.append((best[1], best[2], width))
    return best[1], best[2]


def drawn(boxes: list[tuple[Box, str, str]], size: tuple[int, int]) -> str:
    """(box, class of report.css, its words): all lines, then all words, those of the first boxes where they like best"""
    letter, taken, lines, texts = max(size[0], 0.6 * size[1]) / LETTERS, [], [], []
    for box, kind, text in boxes:
        rect = f'x="{box.x:.2f}" y="{box.y:.2f}" width="{box.width:.2f}" height="{box.height:.2f}"'
        lines.append(f'<rect class="halo" {rect}/><rect class="{kind}" {rect}/>')
        x, y = place(box, kind, 0.6 * letter * len(text), letter, size, taken)
        texts.append(f'<text class="{kind}" x="{x:.2f}" y="{y:.2f}" font-size="{letter:.2f}" stroke-width="{0.22 * letter:.2f}">{html.escape(text)}</text>')
    return "".join(lines[::-1] + texts[::-1])


def words(data: Data, box: Box, before: str = "") -> str:
    return f"{before}{data.name(box.category)} {box.score:.2f}"


def drawing(data: Data, image: int, change: Change | None, boxes: list[Box], label: str, is_first: bool) -> str:
    """Boxes of one network on one image; change: against the first network, None for that one itself"""
    picture, name = data.picture(image), f"picture-{image}"
    size, new = picture.size, {id(box) for box in change.new} if change else set()
    if is_first:
        content = f'<image id="{name}" width="{size[0]}" height="{size[1]}" preserveAspectRatio="none" href="{embedded(picture)}"/>'
    else:
        content = f'<use href="#{name}"/>'
    boxes_drawn = [(box, "new", words(data, box, "new: ")) if id(box) in new else (box, "kept", words(data, box)) for box in boxes]
    boxes_drawn += [(box, "missing", words(data, box, "missing: ")) for box in (change.missing if change else [])]
    content += drawn(boxes_drawn + [(box, "truth", data.name(box.category)) for box in data.truths(image)], size)
    return f'<svg role="img" aria-label="{html.escape(label, quote=True)}" viewBox="0 0 {size[0]} {size[1]}">{content}</svg>'


# ---- numbers ----------------------------------------------------------------------------


def mean(values: list[float], digits: int) -> str:
    return f"{statistics.fmean(values):.{digits}f}" if values else ""


def change_cells(change: Change | None) -> list[str]:
    """kept, missing, new, overlap, score"""
    if not change:
        return [""] * 5
    moved = [after.score - before.score for before, after in change.kept]
    return [str(len(change.kept)), str(len(change.missing)), str(len(change.new)), mean([a.overlap(b) for a, b in change.kept], 3),
            f"{statistics.fmean(moved):+.3f}" if moved else ""]


def header(first: str) -> list[str]:
    return ["model", "boxes", "true boxes found", f"kept of {first}", "missing", "new", "overlap", "score change"]


def picture_table(data: Data, image: int, files: dict[str, Detections], threshold: float) -> Table:
    """Of one image: a row a network"""
    first, truths, rows = next(iter(files)), data.truths(image), []
    for model, detections in files.items():
        boxes = shown(detections, image, threshold)
        change = None if model == first else compare(shown(files[first], image, threshold), boxes)
        rows.append([model, str(len(boxes)), f"{len(pairs(truths, boxes))} of {len(truths)}", *change_cells(change)])
    return header(first), rows


def box_table(data: Data, image: int, files: dict[str, Detections], threshold: float) -> Table:
    """Of one image: a row a box, its score in every network"""
    first, *others = files
    before = shown(files[first], image, threshold)
    rows = [[data.name(b.category), f"{b.x:.0f}, {b.y:.0f}, {b.width:.0f}, {b.height:.0f}", f"{b.score:.3f}"] for b in before]
    extra: list[list[str]] = []
    for place, model in enumerate(others):
        change = compare(before, shown(files[model], image, threshold))
        after = {id(a): b for a, b in change.kept}
        for box, row in zip(before, rows):
            row.append(f"{after[id(box)].score:.3f}" if id(box) in after else "missing")
        extra += [[data.name(b.category), f"{b.x:.0f}, {b.y:.0f}, {b.width:.0f}, {b.height:.0f}", *[""] * (place + 1), f"{b.score:.3f} (new)",
                   *[""] * (len(others) - place - 1)] for b in change.new]
    return ["class", "left, top, width, height", *files], rows + extra


def totals(files: dict[str, Detections], threshold: float) -> dict[str, Change]:
    """Over all images, against the first network, that one itself too"""
    before, found = next(iter(files.values())), {}
    for model, after in files.items():
        found[model] = Change([], [], [])
        for change in changes(before, after, threshold).values():
            for all_of, part in zip((found[model].kept, found[model].missing, found[model].new), (change.kept, change.missing, change.new)):
                all_of += part
    return found


def total_table(files: dict[str, Detections], threshold: float) -> Table:
    first, rows = next(iter(files)), []
    for model, change in totals(files, threshold).items():
        rows.append([model, str(len(change.kept) + len(change.new)), *change_cells(None if model == first else change)])
    return [name for name in header(first) if name != "true boxes found"], rows


def headline(files: dict[str, Detections], threshold: float) -> str:
    """What the last network makes of the first one's boxes"""
    found = totals(files, threshold)
    first, (model, change) = next(iter(found)), list(found.items())[-1]
    count = len(change.kept) + len(change.missing)
    if model == first:
        return f"{first}: {count} boxes with a score above {show(threshold)}."
    return f"{model} keeps {len(change.kept)} of the {count} boxes of {first} with a score above {show(threshold)}, and has {len(change.new)} others."


def notes(files: dict[str, Detections]) -> list[str]:
    """Files that can hardly be of the same images"""
    last = {model: max(detections, default=0) for model, detections in files.items()}
    few, many = (pick(last, key=last.get) for pick in (min, max)) if last else ("", "")
    if not last or last[few] >= 0.9 * last[many]:
        return []
    return [f"{few} has boxes up to image {last[few]}, {many} up to image {last[many]}: were both found on the same images?"]


# ---- the page -----------------------------------------------------------------------------

LEGEND = (("kept", "found"), ("new", "new against {0}"), ("missing", "missing against {0}"), ("truth", "true box"))
ABOUT = ("Boxes with a score above {0}. Two boxes of a class are the same one where they overlap by half or more (intersection over union); overlap, score "
         "change: means over the boxes that are kept.")


def chosen(data: Data, wanted: str | None, files: dict[str, Detections], threshold: float) -> tuple[list[int], str]:
    """(numbers of images, how they were chosen)"""
    if wanted:
        return list(dict.fromkeys(data.number(word.strip()) for word in wanted.split(","))), ""
    numbers = most_changed(files, threshold, PICTURES)
    changed = any(change.missing or change.new for change in totals(files, threshold).values())
    return numbers, "Shown are the images where most boxes are missing or new." if changed else ""


def legend(first: str, is_compared: bool) -> str:
    rect = 'x="2" y="2" width="20" height="12"'
    items = [f'<span><svg width="24" height="16" aria-hidden="true"><rect class="{kind}" {rect}/></svg> {html.escape(name.format(first))}</span>'
             for kind, name in LEGEND if is_compared or kind in ("kept", "truth")]
    return f"<p class=legend>{' '.join(items)}</p>"


def picture(data: Data, image: int, files: dict[str, Detections], threshold: float) -> str:
    """One image: a drawing a network, side by side, and its numbers"""
    first, path = next(iter(files)), data.images[image - 1]
    before, figures = shown(files[first], image, threshold), ""
    for model, detections in files.items():
        boxes = shown(detections, image, threshold)
        svg = drawing(data, image, None if model == first else compare(before, boxes), boxes, f"{model}: {len(boxes)} boxes on image {image}", model == first)
        figures += f"<figure><figcaption>{html.escape(model)}</figcaption>{svg}</figure>"
    boxes = html_table(box_table(data, image, files, threshold))
    return (f"<div class=picture><h3>Image {image}: {html.escape(path.rsplit('/', 1)[-1])}</h3><div class=row style='--columns:{len(files)}'>{figures}</div>"
            f"{html_table(picture_table(data, image, files, threshold))}<details><summary>Numbers: every box of image {image}</summary>{boxes}</details></div>")


def section(data: Data, wanted: str | None, files: dict[str, Detections], threshold: float) -> str:
    for model, detections in files.items():
        data.check(model, detections)
    first = next(iter(files))
    numbers, how = chosen(data, wanted, files, threshold)
    pictures = "".join(picture(data, image, files, threshold) for image in numbers)
    about = " ".join(filter(None, [ABOUT.format(show(threshold)), how]))
    return (f"<section><h2>Boxes side by side</h2><p>{html.escape(about)}</p>{html_table(total_table(files, threshold))}"
            f"{legend(first, len(files) > 1)}{pictures}</section>")
