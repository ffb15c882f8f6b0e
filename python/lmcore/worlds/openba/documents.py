"""Generated documents in two languages, and the nats that each of them costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lmcore.ops.philox import Stream
from lmcore.worlds.draws import Draws, mixture, read_draws

_SENTENCES = range(2, 7)  # between the first and the last


@dataclass(kw_only=True, slots=True, frozen=True)
class Language:
    """The words of a language, and its sentences; `{}` in a sentence stands for a word."""

    stream: Stream
    opening: str
    """Name, role, place."""
    action: str
    """Name or pronoun, verb, adjective, noun."""
    visit: str
    """Name, friend, place."""
    season: str
    """Season, animal, adverb."""
    closing: str
    """Name, role, place."""
    separator: str
    """Between words and between sentences."""
    names: tuple[str, ...]
    """16: of women the first half, of men the other."""
    pronouns: tuple[str, str]
    places: tuple[str, ...]
    roles: tuple[str, ...]
    """8, of which each has four verbs of its own."""
    verbs: tuple[str, ...]
    """32, of which each has four nouns."""
    nouns: tuple[str, ...]
    """64, of which each has two adjectives."""
    adjectives: tuple[str, ...]
    seasons: tuple[str, ...]
    animals: tuple[str, ...]
    """8, of which each has two adverbs."""
    adverbs: tuple[str, ...]

    def words(self) -> list[str]:
        """Returns all words and marks of its texts, each once, in an order that stays."""
        sentences = [self.opening, self.action, self.visit, self.season, self.closing]
        fixed = [word for sentence in sentences for word in sentence.split() if "{" not in word]
        lists = [
            self.names, self.pronouns, self.places, self.roles, self.verbs, self.nouns,
            self.adjectives, self.seasons, self.animals, self.adverbs,
        ]  # fmt: skip
        return list(dict.fromkeys([*fixed, *(word for words in lists for word in words)]))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LANGUAGES = {
    "en": Language(
        stream=Stream.ENGLISH_DOCUMENTS,
        opening="{0} the {1} lived in {2} .",
        action="{0} {1} the {2} {3} .",
        visit="Then {0} met {1} in {2} .",
        season="In {0} the {1} sang {2} .",
        closing="So {0} the {1} went home to {2} .",
        separator=" ",
        names=_words(
            "Ada Berta Clara Dora Edith Flora Greta Hanna Igor Jonas Karl Leo Max Nils Otto Paul"
        ),
        pronouns=("She", "He"),
        places=_words(
            "Alder Birch Cedar Dale Elm Fern Glen Heath Isle Juniper Kelp Larch Marsh Nettle Oak "
            "Pine"
        ),
        roles=_words("baker carpenter farmer painter sailor smith tailor teacher"),
        verbs=_words(
            "baked kneaded sliced tasted built measured polished sawed grew harvested planted "
            "watered coloured drew framed sketched found loaded rowed salted forged hammered "
            "heated sharpened cut dyed folded mended counted described explained praised"
        ),
        nouns=_words(
            "anchor apple axe bag ball barrel basket bell belt blanket boat book bottle bowl box "
            "bread bridge broom brush bucket button cake candle cap carpet chain chair chest clock "
            "coat cup door dress drum fence flag flute fork gate glove hat hook horn jar kettle "
            "key knife ladder lamp letter map mirror nail needle oar pan picture plate pot ring "
            "rope spoon table wheel"
        ),
        adjectives=_words(
            "black blue broken clean cold dirty green heavy large light long new old red small warm"
        ),
        seasons=_words("spring summer autumn winter"),
        animals=_words("blackbird cuckoo finch lark nightingale robin thrush wren"),
        adverbs=_words("badly bravely loudly often quietly rarely sadly well"),
    ),
    "zh": Language(
        stream=Stream.CHINESE_DOCUMENTS,
        opening="{0} 是 住在 {2} 的 {1} 。",
        action="{0} {1} 了 {2} {3} 。",
        visit="后来 {0} 在 {2} 遇见 了 {1} 。",
        season="{0} ， {1} {2} 地 唱歌 。",
        closing="于是 {1} {0} 回到 了 {2} 。",
        separator="",
        names=_words(
            "小芳 小兰 小梅 小红 小燕 小雪 小玉 小云 大刚 大海 大江 大龙 大山 大伟 大勇 大志"
        ),
        pronouns=("她", "他"),
        places=_words(
            "东村 西村 南村 北村 河口 湖边 桥头 林场 石城 沙镇 竹园 松岭 花溪 茶乡 盐港 金谷"
        ),
        roles=_words("面包师 木匠 农民 画家 水手 铁匠 裁缝 老师"),
        verbs=_words(
            "烘烤 揉搓 切开 品尝 建造 测量 打磨 锯断 种植 收割 浇灌 栽培 涂抹 描绘 装裱 勾画 "
            "发现 装载 划动 腌制 锻造 敲打 加热 磨利 剪裁 染色 折叠 缝补 清点 讲述 解释 称赞"
        ),
        nouns=_words(
            "船锚 苹果 斧头 袋子 皮球 木桶 篮子 铃铛 腰带 毯子 小船 书本 瓶子 饭碗 盒子 面包 "
            "石桥 扫帚 刷子 水桶 纽扣 蛋糕 蜡烛 帽子 地毯 链条 椅子 箱子 时钟 外套 杯子 房门 "
            "裙子 皮鼓 篱笆 旗帜 笛子 叉子 大门 手套 草帽 钩子 号角 罐子 水壶 钥匙 刀子 梯子 "
            "油灯 信件 地图 镜子 钉子 缝针 船桨 平锅 图画 盘子 砂锅 戒指 绳子 勺子 桌子 车轮"
        ),
        adjectives=_words(
            "黑色的 蓝色的 破旧的 干净的 冰冷的 肮脏的 绿色的 沉重的 巨大的 轻巧的 细长的 崭新的 "
            "古老的 红色的 小巧的 温暖的"
        ),
        seasons=_words("春天 夏天 秋天 冬天"),
        animals=_words("乌鸫 杜鹃 燕雀 百灵 夜莺 知更鸟 画眉 鹪鹩"),
        adverbs=_words("糟糕 勇敢 大声 经常 安静 偶尔 悲伤 动听"),
    ),
}


@dataclass(kw_only=True, slots=True, frozen=True)
class Document:
    """A text, its words, and what they cost a reader who knows how it is made."""

    language: str
    words: tuple[str, ...]
    """Words and punctuation marks, in order; they are the tokens of `write_piece_file`."""
    nats: float
    """The negative logarithm of the probability that this text is generated."""

    @property
    def text(self) -> str:
        """The document in one line."""
        separator = LANGUAGES[self.language].separator
        return separator.join(self.words).replace(" .", ".")

    @property
    def token_count(self) -> int:
        """How many tokens it is, with its end; a Chinese text begins with a word mark alone."""
        return len(self.words) + 1 + (self.language == "zh")


def generate_documents(
    language: str, count: int, seed: int, *, first: int = 0
) -> Iterator[Document]:
    """Yields documents; document i depends on (seed, i) alone.

    Args:
        language: `en` or `zh`.
        count: number of documents.
        seed: below 2**64.
        first: index of the first of them.

    Raises:
        ValueError: the language is another, or an argument is out of its range.

    Example:
        >>> [document.text[:29] for document in generate_documents("en", 2, seed=1)]
        ['Nils the smith lived in Junip', 'Greta the carpenter lived in ']
    """
    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}: got {language!r}")
    if count < 0 or first < 0:
        raise ValueError(f"count and first must be at least 0: got {count} and {first}")
    words = LANGUAGES[language]
    for draws in read_draws(seed, words.stream, count, first=first):
        # The draws add up what is chosen, so the words come first.
        content = tuple(_tell(words, draws).split())
        yield Document(language=language, words=content, nats=draws.surprisal)


def _tell(words: Language, draws: Draws) -> str:
    """The sentences of a document."""
    role = draws.pick(range(len(words.roles)))
    person = draws.pick(range(len(words.names)))
    name, place = words.names[person], draws.pick(words.places)
    pronoun = words.pronouns[person >= len(words.names) // 2]
    others = [other for other in words.names if other != name]

    def act(draws: Draws) -> str:
        subject = draws.pick((name, pronoun))
        verb = 4 * role + draws.pick(range(4))
        noun = (7 * verb + 3 * draws.pick(range(4))) % len(words.nouns)
        adjective = (5 * noun + draws.pick(range(2))) % len(words.adjectives)
        return words.action.format(
            subject, words.verbs[verb], words.adjectives[adjective], words.nouns[noun]
        )

    def visit(draws: Draws) -> str:
        return words.visit.format(name, draws.pick(others), draws.pick(words.places))

    def sing(draws: Draws) -> str:
        season = draws.pick(words.seasons)
        animal = draws.pick(range(len(words.animals)))
        adverb = (3 * animal + draws.pick(range(2))) % len(words.adverbs)
        return words.season.format(season, words.animals[animal], words.adverbs[adverb])

    told = mixture((0.6, act), (0.2, visit), (0.2, sing))
    middle = [told(draws) for _ in range(draws.pick(_SENTENCES))]
    known = (name, words.roles[role], place)
    return " ".join([words.opening.format(*known), *middle, words.closing.format(*known)])
