"""`motet studio`: a page on this machine to generate, ask, edit and reflect, with two policies side by side.

`session` and the modules that it uses need no gradio; `page` and `server` do (the extra `motet[studio]`).
"""
