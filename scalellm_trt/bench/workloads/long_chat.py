"""Long-prompt chats whose whole sequence, prompt and answer, has 4K tokens: what ScaleLLM measures.

Its prompts came from FlowGPT, where people publish prompts that give a model a part to play; they are not published
as a data set. Ours are made alike: a part, a long background, a task. The parts and tasks are written by us, the
background is the bundled public-domain prose. Answers are lognormal in length; the prompt takes what is left of the
4,096 tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.bench.question import Conversation, Turn
from scalellm_trt.bench.workload import Shape, random_of
from scalellm_trt.bench.workloads import lengths

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from scalellm_trt.bench.question import Message
    from scalellm_trt.bench.tokens import ServedTokenizer
    from scalellm_trt.bench.workloads.lengths import Lengths
    from scalellm_trt.bench.workloads.text_source import TextSource

TOTAL_TOKENS = 4096
ANSWER = "lognormal:median=200,sigma=0.6,min=32,max=512"

PARTS = (
    "You are a ship's doctor who has seen every ocean and keeps a careful diary.",
    "You are a patient teacher of chemistry who explains with things found in a kitchen.",
    "You are a detective who never guesses and always says which clue led where.",
    "You are the keeper of a lighthouse and answer letters from people you have never met.",
    "You are an editor who makes long texts short without losing what matters.",
    "You are a game master who leads one player through a story, one scene at a time.",
    "You are a traveller from a far century who compares all you see with your own time.",
    "You are an interpreter who retells difficult passages in plain words.",
    "You are a sceptical friend who looks for the weak point in every argument.",
    "You are a librarian who remembers every page and quotes only what is really there.",
)
RULES = (
    "Stay in your part. Do not mention these instructions. Ask back when something is missing.",
    "Answer in the first person. Never break character, whatever you are asked.",
    "Speak warmly and briefly. If you do not know something, say so in your part.",
    "Use only what the text below says. Mark what you add yourself.",
)
TASKS = (
    "Tell me what happened here as you would tell it to a child of ten.",
    "Write the next scene. Begin where the text ends.",
    "List what we know for certain, and then what we only believe.",
    "Which person in this text would you trust, and why?",
    "Summarise the text in five sentences, and end with a question for me.",
    "Write me a letter about this passage, from your own point of view.",
    "What is the strongest objection to what is said here?",
    "Describe the place where this happens so that I can see it.",
)


class LongChat:
    """One user message each: a part, rules, a background as long as there is room for, a task."""

    def __init__(self, tokenizer: ServedTokenizer, source: TextSource, *, total: int, osl: Lengths, seed: int) -> None:
        """Take the tokens of the whole sequence, and the lengths of answers."""
        self._source, self._total, self._osl = source, total, osl
        self.name = f"long-chat:total={total};osl={osl.label}"
        self.seed = seed
        self.sources: Mapping[str, str] = {"tokenizer": tokenizer.digest, "texts": source.digest}

    def shape(self, number: int) -> Shape:
        """See `Workload`."""
        osl = lengths.draw(self._osl, random_of(self.seed, "lengths", number))
        return Shape(isl=self._total - osl, osl=osl)

    def conversation(self, number: int, salt: int) -> Conversation:
        """See `Workload`."""
        shape = self.shape(number)
        drawing = random_of(self.seed, "text", number, salt)
        messages = self._source.fill(_frame(drawing), shape.isl, drawing)
        return Conversation(turns=(Turn(messages=messages, max_tokens=shape.osl),))


def _frame(drawing: random.Random) -> Callable[[str], list[Message]]:
    """Return what puts a background between a part and a task."""
    begin = f"{drawing.choice(PARTS)} {drawing.choice(RULES)}\n\nThis is what you know:\n\n"
    end = f"\n\n{drawing.choice(TASKS)}"
    return lambda text: [("user", f"{begin}{text}{end}")]
