"""report_page.py: pieces of report.py's page: a table, a plot with its numbers, a section."""
import html

WIDE = 8  # columns of a table that a panel has room for

Table = tuple[list[str], list[list[str]]]  # header, rows


def narrow(table: Table) -> Table:
    """A table of many columns and few rows is turned round."""
    header, rows = table
    if len(header) <= WIDE or len(rows) + 1 >= len(header):
        return table
    first, *others = [list(column) for column in zip(header, *rows)]
    return first, others


def html_table(table: Table) -> str:
    header, rows = table
    head = "".join(f"<th scope=col>{html.escape(c)}</th>" for c in header)
    body = "".join("<tr>" + "".join(f"<{'th scope=row' if i == 0 else 'td'}>{html.escape(c)}</{'th' if i == 0 else 'td'}>"
                                    for i, c in enumerate(row)) + "</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def panel(figure, title: str, table: Table) -> str:
    import report_figures
    svg = report_figures.to_svg(figure, html.escape(title, quote=True))
    return f"<figure>{svg}<details><summary>Numbers: {html.escape(title)}</summary>{html_table(narrow(table))}</details></figure>"


def section(title: str, text: str, panels: list[str]) -> str:
    if not panels:
        return ""
    return f"<section><h2>{html.escape(title)}</h2><p>{html.escape(text)}</p><div class=panels>{''.join(panels)}</div></section>"
