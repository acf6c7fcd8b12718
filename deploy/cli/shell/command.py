"""A command's help: two examples first, then what it does, then its options in groups."""

from collections.abc import Sequence

import click

# section -> the parameters in it, of whatever command has them; the others stand under Options
_SECTIONS = {
    "Network": ("arch", "assume", "classes", "features", "logits"),
    "Preprocessing": ("preprocess", "input_size_px", "mean", "std", "resize_px"),
    "Images": ("calib", "data", "images", "batch", "seed"),
    "Limits": (
        *("max_drop", "min_top1", "min_agreement", "max_class_drop", "max_slower", "strict"),
        "min_probability",
    ),
    "Compare": ("checkpoint", "against", "baseline", "save_baseline", "ratchet", "earlier"),
    "Another machine": ("on", "on_python"),
    "Engine": (
        *("compute_capabilities", "workspace_mib", "timing_cache", "strongly_typed"),
        *("version_compatible", "hardware_compatible", "dla_core", "optimization_level"),
    ),
    "Security": ("sign", "verify_key", "token_file", "tls_cert", "tls_key"),
    "Output": (
        *("output", "overwrite", "as_json", "csv_file", "save_dir", "junit", "markdown", "html"),
        *("record", "wide", "chart", "name", "kserve", "storage_uri", "cache", "trt_version"),
    ),
}


class Command(click.Command):
    """A click command whose epilog holds its examples, one a line."""

    @property
    def examples(self) -> Sequence[str]:
        """Lines to type."""
        return [line.strip() for line in (self.epilog or "").splitlines() if line.strip()]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples, usage, text, options."""
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self.examples))
            formatter.write_paragraph()
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        self.format_options(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options under the heading of their group."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": [], **{key: [] for key in _SECTIONS}}
        home = {name: key for key, names in _SECTIONS.items() for name in names}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                groups[home.get(parameter.name or "", "Options")].append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
