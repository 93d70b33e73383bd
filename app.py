"""ScDiVa Explorer: navigation, the sidebar, and the server with its own routes.

``streamlit run app.py`` reads this file twice: once as the ASGI application (``app:app``), and for each run of a
page as the script ``__main__``.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages._ui.downloads import download_routes
from pages._ui.gene_lists import gene_list_routes
from pages._ui.memory import giving_back
from pages._ui.upload import upload_routes

_IMAGES = Path(__file__).resolve().parent / "assets" / "images"


def main() -> None:
    """Draw the frame and the page that was asked for."""
    st.set_page_config(
        page_title="ScDiVa Explorer",
        page_icon=str(_IMAGES / "icon.svg"),
        layout="wide",
        initial_sidebar_state="auto",
    )
    st.logo(_IMAGES / "logo.svg", icon_image=_IMAGES / "icon.svg", size="large")
    from pages._ui import frame  # the engine's libraries: not needed to begin listening

    frame.begin()
    start = st.Page(frame.start, title="Start", default=True, visibility="hidden")
    pages = [st.Page(f"pages/{name}.py", title=title, icon=icon) for name, (title, icon) in frame.PAGES.items()]
    frame.run(st.navigation([start, *pages]))


if __name__ == "__main__":
    main()
else:
    app = st.App(__file__, routes=[*upload_routes(), *download_routes(), *gene_list_routes()], lifespan=giving_back)
