"""Pages as a parser sees them."""

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "input", "hr", "use", "path", "rect"}


class Page(HTMLParser):
    """Checks that elements are closed in order; gathers tags, text, and whatever the page would load."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.loads, self.words = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [
            value for name, value in attributes if name in ("src", "href", "xlink:href", "data", "srcset")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))
