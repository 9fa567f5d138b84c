"""A group of commands of which one is meant where none is named."""

from typing import Any, ClassVar

from typer.core import TyperGroup


class DefaultCommand(TyperGroup):
    default: ClassVar[str]

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        first = arguments[0] if arguments else ""
        if not context.resilient_parsing and first not in {*self.commands, *context.help_option_names}:
            self.check_first(first)
            arguments = [self.default, *arguments]
        return super().parse_args(context, arguments)

    def check_first(self, word: str) -> None:
        """Raises UsageError for a first word that the default command could not take."""

    def shell_complete(self, context: Any, incomplete: str) -> Any:
        """The commands, and what the default one takes."""
        default = self.commands[self.default]
        with default.make_context(self.default, [], parent=context, resilient_parsing=True) as own:
            return [*super().shell_complete(context, incomplete), *default.shell_complete(own, incomplete)]
