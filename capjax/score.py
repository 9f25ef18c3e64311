"""Scores candidate captions against references; several systems give one table with intervals.

  python -m capjax.score --candidates ours.json theirs.json --references captions_val2017.json \\
      --metrics bleu,meteor,rouge_l,cider,diversity --json scores.json

References are COCO annotations, candidates COCO results; both may be a JSON mapping from image id
to captions or JSON lines, such as capjax.caption writes; candidates also its folder of parts, and
several samples of a picture, which --pick says what to do with. Captions are tokenised as
coco-caption does, without Java, and values equal those of coco-caption; BLEU, METEOR, ROUGE-L and
CIDEr are printed times 100.

metrics:
  bleu rouge_l cider cider_plain   from captions alone; cider is coco-caption's (CIDEr-D)
  meteor      METEOR 1.5; needs pip install pycocoevalcap
  tuple_f     F-score of scene-graph tuples, SPICE's scoring on another parser; needs --parser
  spider      mean of cider and tuple_f (not SPIDEr, which needs SPICE); needs --parser
  chair       objects that are not in the picture; needs --objects
  diversity   distinct n-grams, vocabulary, unique captions; novelty with --training
  lengths     words and characters a caption
  self_bleu   likeness of an image's candidates; needs several

--json FILE holds values in the scale of coco-caption (a cider of 1.26, printed 126):
{"metrics": {name: value}, "intervals": {name: [low, high]}}, with --per-image also
{"per_image": {id: {name: value}}}; of several systems {"systems": {system: the same},
"differences": {system: {name: {value, low, high, p_value}}}}, each minus the first system.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from capjax.errors import UserError, exit_cleanly
from capjax.metrics import DocumentFrequencies, References, Scores, tokenize
from capjax.metrics.bootstrap import Interval, measure_difference, measure_interval
from capjax.metrics.caption_files import Captions, read_candidates, read_references
from capjax.metrics.chair import true_objects
from capjax.metrics.object_words import ObjectVocabulary, load_annotations
from capjax.metrics.scene_graph import load_parser
from capjax.metrics.suite import Suite
from capjax.report import comparison
from capjax.whole_file import whole_file

DEFAULT_METRICS = "bleu,rouge_l,cider"


def read_systems(paths: Sequence[str]) -> dict[str, Captions]:
    """{system: {image id: its candidates}}; a system is called as its file is, without ending.

    Raises:
      UserError: as `read_candidates`, or a file given twice.
    """
    stems = [Path(path).name.split(".")[0] for path in paths]
    systems: dict[str, Captions] = {}
    for path, stem in zip(paths, stems, strict=True):
        name = stem if stems.count(stem) == 1 else path
        for scale, captions in read_candidates(path).items():
            if name + scale in systems:
                raise UserError(f"the candidates {path} are given twice: name each file once")
            systems[name + scale] = captions
    return systems


def restrict(references: Captions, systems: dict[str, Captions]) -> Captions:
    """The references of the images that the first system has candidates for.

    Raises:
      UserError: none of them.
    """
    wanted = next(iter(systems.values()))
    kept = {image_id: captions for image_id, captions in references.items() if image_id in wanted}
    if not kept:
        raise UserError("no image of the candidates is among the references: compare their ids")
    return kept


def read_corpus(path: str) -> DocumentFrequencies:
    """Document frequencies from a file of them (.npz), or counted from a file of references."""
    if path.endswith(".npz"):
        return DocumentFrequencies.load(path)
    return DocumentFrequencies.of(References.from_captions(read_references(path)))


def suite_of(args: argparse.Namespace, references: References) -> Suite:
    """The metrics asked for, with what they need."""
    objects = training = None
    if args.objects:
        vocabulary = ObjectVocabulary.load(args.objects, args.object_rules)
        annotations = load_annotations(args.annotations) if args.annotations else None
        objects = vocabulary, true_objects(references, vocabulary, annotations)
    if args.training:
        texts = [text for of_image in read_references(args.training).values() for text in of_image]
        training = [tokenize(text) for text in texts]
    return Suite(
        metrics=args.metrics.split(","),
        parser=load_parser(args.parser) if args.parser else None,
        objects=objects,
        training=training,
        pick=args.pick,
    )


def report_of(
    systems: dict[str, Scores], *, resamples: int, per_image: bool
) -> tuple[dict[str, Any], str]:
    """(what --json holds, the table for the terminal)."""
    first, *others = systems
    intervals = {
        system: {
            name: measure_interval(measure, resamples=resamples)
            if resamples
            else Interval(measure.value, measure.value, measure.value)
            for name, measure in scores.measures.items()
        }
        for system, scores in systems.items()
    }
    differences = {
        system: {
            name: measure_difference(measure, systems[first].measures[name], resamples=resamples)
            for name, measure in systems[system].measures.items()
        }
        for system in (others if resamples else ())
    }
    each: dict[str, dict[str, Any]] = {}
    for system, scores in systems.items():
        each[system] = {"metrics": scores.metrics}
        if resamples:
            each[system]["intervals"] = {
                name: [found.low, found.high] for name, found in intervals[system].items()
            }
        if per_image:
            each[system]["per_image"] = scores.per_image
    content = each[first]
    if others:
        content = {
            "systems": each,
            "differences": {
                system: {name: found._asdict() for name, found in found_of.items()}
                for system, found_of in differences.items()
            },
        }
    return content, comparison.text(intervals, differences)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m capjax.score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--candidates", required=True, nargs="+", metavar="FILE", help="one or more, a system each")
    add("--references", required=True, metavar="FILE")
    add("--metrics", default=DEFAULT_METRICS, help=f"default: {DEFAULT_METRICS}")
    add(
        "--subset",
        action="store_true",
        help="score the images that have candidates; leave out the references of others",
    )
    add("--json", metavar="FILE", help="where to write the values")
    add("--per-image", action="store_true", help="each image's values too, in the JSON")
    add(
        "--resamples",
        type=int,
        default=1000,
        help="drawings of the bootstrap that makes 95%% intervals (default 1000; 0: no intervals)",
    )
    add(
        "--pick",
        choices=["first", "mean", "max", "min"],
        help="where the files give several candidates an image: the first ones' values, the mean "
        "over candidates, or each image's best (the oracle, best of n) or worst",
    )
    add(
        "--document-frequencies",
        metavar="FILE",
        help="what CIDEr weighs n-grams with: the references of a larger corpus, or an .npz that"
        " DocumentFrequencies.save wrote (default: the references)",
    )
    add("--training", metavar="FILE", help="the training captions, for the novelty of diversity")
    add("--parser", metavar="MODULE", help="such as capjax.metrics.parsers.spacy")
    add("--objects", metavar="FILE", help='for chair: {"object": ["synonym", ...], ...}')
    add("--object-rules", metavar="FILE", help="for chair: compounds and exceptions")
    add("--annotations", metavar="FILE", help='for chair: {"image id": ["object", ...], ...}')
    args = parser.parse_args()
    if args.per_image and not args.json:
        raise UserError("--per-image goes into a file: name it with --json")
    if args.json and not Path(args.json).absolute().parent.is_dir():
        raise UserError(f"the folder of --json {args.json} does not exist: make it first")
    if args.resamples < 0:
        raise UserError(f"--resamples is {args.resamples}: give 0 for none, or 1000")
    if (args.object_rules or args.annotations) and not args.objects:
        raise UserError("--object-rules and --annotations belong to --objects: give that too")
    return args


def main() -> None:
    args = parse_arguments()
    systems = read_systems(args.candidates)
    captions = read_references(args.references)
    if args.subset:
        captions = restrict(captions, systems)
    corpus = read_corpus(args.document_frequencies) if args.document_frequencies else None
    references = References.from_captions(captions, corpus=corpus)
    suite = suite_of(args, references)
    scores: dict[str, Scores] = {}
    with tqdm(total=len(systems) * len(suite.metrics), leave=False, disable=None) as bar:

        def done(name: str) -> None:
            bar.update()

        for system, candidates in systems.items():
            bar.set_description(f"scoring {system}")
            try:
                scores[system] = suite.score(candidates, references, done)
            except UserError as error:
                raise UserError(f"{system}: {error}") from error
    content, table = report_of(scores, resamples=args.resamples, per_image=args.per_image)
    print(table)
    mean = len(references.image) / len(references)
    intervals = f"; 95% bootstrap intervals, {args.resamples} resamples" if args.resamples else ""
    print(f"{len(references)} images, {mean:.1f} references each{intervals}")
    if args.json:
        with whole_file(args.json) as file:
            json.dump(_strict(content), file, indent=1)
            file.write("\n")


def _strict(value: Any) -> Any:
    """JSON has no NaN: what is not a number is null."""
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    exit_cleanly(main)
