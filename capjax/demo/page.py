"""The page, in Gradio: a picture, a slider, captions. What it shows is worked out in `answers`.

It needs no network: fonts are the reader's own, usage statistics are off, there is no public link.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from capjax.demo.answers import Answers, Search
from capjax.errors import UserError
from capjax.report import word_guidance

START = 2.0  # of the slider
STEP = 0.1
LARGEST_FILE = "64mb"
SMALL = 112  # pixels: smaller pictures are enlarged with sharp edges
KINDS = {
    "the likeliest word each time (greedy)": "greedy",
    "beams: the best of several": "beams",
    "at random (sampling)": "sampling",
}
_FONTS = ("system-ui", "DejaVu Sans", "sans-serif")
_STYLE = """
footer { display: none !important; }
.gradio-container { max-width: 76rem !important; margin: 0 auto !important; }
.intro h1 { font-size: 1.6rem; font-weight: 650; margin: 0 0 .2rem; }
.intro p { margin: 0; max-width: 50rem; }
.intro .run { opacity: .7; font-size: .85rem; margin-top: .2rem; }
.crisp img { image-rendering: pixelated; }
.crisp #picture img { width: 100%; height: 100%; object-fit: contain; }
"""


def gradio() -> Any:
    """The library, told to keep to itself; UserError where it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise UserError(
            "the web page is built with the package gradio, which is missing: "
            "pip install 'capjax[demo]'"
        ) from error
    return gradio


def build(answers: Answers, title: str, examples: Sequence[Path], max_gamma: float) -> Any:
    """The page as `gradio.Blocks`; title: what run it is about."""
    gr = gradio()
    small = answers.captioner.model.image_size < SMALL and bool(examples)
    with gr.Blocks(title="capjax: guided captions", analytics_enabled=False) as page:
        gr.HTML(
            '<div class="intro"><h1>Captions with guidance</h1><p>The captioner judges each next '
            "word twice: seeing the picture, and not seeing it. The guidance scale γ says how much "
            "the difference counts. 0 ignores the picture, 1 is plain decoding; the higher γ is, "
            "the more specific to this picture the words become, until the sentence falls "
            f'apart.</p><p class="run">{escape(title)}</p></div>'
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300, elem_classes=["crisp"] if small else []):
                picture = gr.Image(
                    str(examples[0]) if examples else None,
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    label="Picture",
                    buttons=["fullscreen"],
                    height=300,
                    elem_id="picture",
                )
                # Gradio would open the file itself and fail before `answers` can say what is wrong.
                picture.preprocess = lambda payload: payload and payload.path
                if examples:
                    gr.Examples(
                        [[str(path)] for path in examples],
                        picture,
                        cache_examples=False,
                        examples_per_page=len(examples),
                        label="Examples",
                        elem_id="examples",
                        api_visibility="private",
                    )
                with gr.Accordion("How captions are searched for", open=False, elem_id="search"):
                    kind = gr.Radio(
                        list(KINDS.items()), value="greedy", show_label=False, container=False
                    )
                    with gr.Group(visible=False) as beams_settings:
                        num_beams = gr.Slider(2, 8, 4, step=1, label="Beams", elem_id="beams")
                    with gr.Group(visible=False) as sampling_settings:
                        temperature = gr.Slider(
                            0.1, 2, 1, step=0.1, label="Temperature", info="lower: surer words"
                        )
                        top_p = gr.Slider(
                            0.1, 1, 1, step=0.05, label="Top-p", info="1: all words, however rare"
                        )
                        again = gr.Button("Draw again", elem_id="again")
            with gr.Column(scale=3, min_width=320):
                gamma = gr.Slider(
                    0,
                    max_gamma,
                    min(START, max_gamma),
                    step=STEP,
                    label="Guidance scale γ",
                    elem_id="gamma",
                )
                captions = gr.HTML(elem_id="captions")
                gr.HTML(word_guidance.LEGEND)
        with gr.Accordion("The numbers, token by token", open=False, elem_id="more"):
            numbers = gr.HTML(elem_id="numbers")
        draw = gr.State(0)

        def answer(path, scale, kind, num_beams, temperature, top_p, draw):
            search = Search(kind, temperature, top_p, draw, num_beams)
            return tuple(answers(path, round(scale, 3), search))

        def settings_of(kind):
            return gr.update(visible=kind == "beams"), gr.update(visible=kind == "sampling")

        kind.change(
            settings_of,
            kind,
            [beams_settings, sampling_settings],
            show_progress="hidden",
            api_visibility="private",
        )
        again.click(lambda n: n + 1, draw, draw, show_progress="hidden", api_visibility="private")
        gr.on(
            # Beams, temperature and top-p are compiled for: only where a slider comes to rest.
            [page.load, picture.change, gamma.change, kind.change, draw.change, num_beams.release,
             temperature.release, top_p.release],
            answer,
            [picture, gamma, kind, num_beams, temperature, top_p, draw],
            [captions, numbers],
            # While one answer is made, of those that are asked for only the last one counts.
            trigger_mode="always_last",
            concurrency_limit=1,
            show_progress="minimal",
            api_visibility="private",
        )  # fmt: skip
    return page


def serve(page: Any, host: str, port: int) -> str:
    """Starts to serve the page in the background; its address. UserError if that cannot be."""
    gr = gradio()
    # Gradio asks its own server whether it is there, which no proxy can answer.
    own = [os.environ.get("no_proxy") or os.environ.get("NO_PROXY", ""), host, "localhost"]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, own))
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size=LARGEST_FILE,
            # Not the library's orange, which has a meaning here.
            theme=gr.themes.Default(
                primary_hue="slate", font=_FONTS, font_mono=("ui-monospace", "monospace")
            ),
            css=_STYLE + word_guidance.STYLE,
        )
    except OSError as error:
        raise UserError(f"cannot serve at {host} port {port}: {error}") from error
    return page.local_url
