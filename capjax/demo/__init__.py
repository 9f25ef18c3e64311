"""The web page to try a captioner: `python -m capjax.demo --checkpoint DIR`."""
