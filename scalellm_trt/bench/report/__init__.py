"""A run and what is made of it, as one HTML file that needs nothing else, as Markdown and as JSON.

`content` gathers, `page`, `markdown` and `as_json` write; `axis`, `svg` and `charts` draw.
"""
