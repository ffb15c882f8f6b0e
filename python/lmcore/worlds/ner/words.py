"""The words of generated sentences: what each slot of a template may become, by language.

Function words repeat within a sentence as they do in real text, which is what makes an alignment
ambiguous. English words are separated by spaces; a Chinese word is one character, and a run of
digits or Latin letters is one word too.
"""

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lmcore.worlds.draws import Choice, among, choose, combine, mixture, number, phrase

LANGUAGES = ("en", "zh")

_ENGLISH_COMMON = """
    the of and to in that was for on with as by at from had were which this an be not but it his
    her their they who has would could one two more after than other all been some into its when
    where there while because about over before between under again
"""


@dataclass(kw_only=True, slots=True, frozen=True)
class Vocabulary:
    """What fills the templates of a language."""

    slots: Mapping[str, Choice]
    """By `{name}`, as it stands in a template."""
    types: Mapping[str, str]
    """Slots that are entities, and their types."""
    cut: Callable[[str], list[str]]
    """A text into words."""
    end: str
    """The last word of a sentence."""
    common_words: tuple[str, ...]
    """What a model puts for a lost word."""


@functools.cache
def make_vocabulary(language: str) -> Vocabulary:
    """Returns the words of a language.

    Args:
        language: `en` or `zh`.

    Raises:
        ValueError: unknown language.

    Example:
        >>> make_vocabulary("zh").cut("第12页")
        ['第', '12', '页']
    """
    if language == "en":
        return _english()
    if language == "zh":
        return _chinese()
    raise ValueError(f"language must be one of {', '.join(LANGUAGES)}: got {language!r}")


@functools.cache
def common_words(dataset: str) -> tuple[str, ...]:
    """Returns what a model puts for a lost word: of both languages where the data are others.

    Args:
        dataset: name of the data set; `generated-<language>` is of that language.
    """
    languages = [name for name in LANGUAGES if dataset == f"generated-{name}"] or LANGUAGES
    return tuple(word for name in languages for word in make_vocabulary(name).common_words)


def _cut_characters(text: str) -> list[str]:
    return re.findall(r"[A-Za-z0-9]+|\S", text)


def _english() -> Vocabulary:
    first = among("""
        Ada Alma Anton Beatriz Boris Carmen Cedric Clara Dario Dmitri Edith Elena Emil Erik
        Farid Felix Freya Gita Greta Hana Hector Hugo Ida Imran Ines Ivan Jana Jonas Juno Kamal
        Karin Lena Leo Lydia Magnus Marta Mei Milan Nadia Nils Nora Olga Omar Otto Paula Petra
        Priya Ravi Rosa Ruth Samir Selma Simon Tamar Theo Tilda Uma Vera Viktor Wanda Yara Yusuf
        Zoë René José Søren Łukasz Chloé Jürgen Björk
    """)
    last = combine(
        among("""
            Al Ash Bar Bel Bern Bran Cal Car Dal Den El Fal Far Gar Gil Hal Har Hol Kar Kel Lan
            Lin Mal Mar Nor Or Pal Pen Quin Ros Sal Sel Tal Tor Ul Val Var Wel Wil Zel Mü Hé Kö
            Čer
        """),
        among("""
            berg bert by cott dale den ders dini er feld field ford gren hart holm hurst ick
            ington ino kin lund man mann mer mond more nov ova ovic quist ridge row sen ski son
            stad stein ström ton vale wick win worth zano
        """),
    )
    town = combine(
        among("""
            Ald Alder Apple Arden Ban Bex Birch Black Brack Bright Brook Carl Clay Cold Cor Crow
            Dun East Elm Fair Fen Glen Green Hazel High Iron King Lake Lang Maple Mill North Oak
            Old Pine Raven Red River Rock Rose Sand Silver Stan Stone Summer Thorn West White
            Wind Winter Wood
        """),
        among("""
            bourne bridge brook burg bury by dale den fell field ford gate ham haven hill hurst
            land ley mere minster mouth port shore stead ton town vale ville wick worth
        """),
    )
    brand = combine(
        among("""
            Aer Alt Ax Bio Cel Cor Cy Del Dyn El Ful Gen Hel Hex In Jov Kin Lum Lyr Mag Mer Neo
            Nim Nov Om Op Or Pri Quan Qu Ra Sen Sol Syn Tel Ter Tri Uni Ven Ver Vol Xen Zen Zeph
        """),
        among("""
            ada ala ano aris atic eon era ero ex ia ica ida ient igo ilo ion ira is ium ix ola
            onic ora oro os ova ura us yx
        """),
    )
    field = among("Health Trade Culture Energy Transport Science Labour Finance Justice")
    role = among("""
        analyst architect captain chairman chemist coach commissioner conductor curator director
        doctor editor engineer farmer geologist governor historian inspector judge lawyer
        manager mayor minister musician novelist painter pilot poet president professor reporter
        scientist secretary senator singer spokeswoman surgeon teacher trainer treasurer
    """)
    noun = among("""
        account agreement airport answer archive army attack audience bank barrier battle boat
        book border bridge budget campaign canal capital castle cause centre century chapel city
        claim coast college colony company concert conflict contract council country court crew
        crisis culture decision defence degree delay design district division document drought
        economy edition election engine estate evidence exhibition expedition expert factory
        family farm festival field film fire fleet flight flood forest fortress fund future game
        garden goal government harbour history hospital hotel house idea industry inquiry island
        journal journey kingdom lake language law league letter level library machine majority
        market match meeting memory message method mine mission model monument morning mountain
        movement museum network novel office orchestra order painting palace parliament party
        patent path peace period plan plant policy population port price prison problem process
        programme project proposal protest province railway record reform region reply report
        request rescue result river road route school season shore signal society source square
        stadium state station story strategy street strike study survey system tax team temple
        theatre theory tower town trade tradition trial tunnel union valley verdict version
        victory village vote wall war warning water weather winter witness work year
    """)
    adjective = among("""
        able ancient annual bitter bold brief bright broad busy calm careful central cheap civil
        clear cold common complete crowded daily dark deep distant double early eastern empty
        entire equal famous final firm foreign former free fresh full general global golden
        great green hard heavy helpful hidden historic huge important joint large late legal
        light local lonely long loose lost loud main major military minor modern narrow national
        native new noisy northern official old open ordinary painful partial poor popular
        private public quiet rapid rare recent regional rich rough royal rural safe second
        secret senior serious severe sharp short silent simple slow small social solid southern
        stable steep strange strong sudden tall technical thick thin third tiny tired unique
        urban useful usual vast warm weak western wide wild wooden young
    """)
    verb = among("""
        accepted adopted announced approved attacked avoided bought built cancelled carried
        caused challenged changed chose closed collected completed confirmed controlled covered
        created criticised crossed cut defended delayed described designed destroyed discovered
        discussed doubled ended examined expected explained extended finished followed founded
        funded guarded halted ignored improved inspected joined launched left lost managed
        measured missed moved named needed noticed offered opened opposed ordered organised
        owned planned praised prepared produced promised protected published questioned raised
        reached received recorded reduced refused rejected repaired replaced reported rescued
        restored returned revealed reviewed saved searched sent shared signed sold started
        stopped studied supported surprised tested threatened visited wanted warned welcomed won
    """)
    determiner = mixture(
        (0.45, choose(["the"])),
        (0.55, among("this its their his her our another every each some")),
    )
    adverb = among("""
        again almost already also clearly finally gradually hardly later mainly never now often
        only openly partly quickly quietly rarely recently slowly soon still suddenly twice
    """)
    slots: dict[str, Choice] = {
        "{person}": mixture(
            (0.6, phrase(first, last)),
            (0.22, last),
            (0.1, phrase(first, among("A. B. C. E. J. K. M. P. R. T."), last)),
            (0.08, phrase(first, choose(["van der", "de la", "von", "al"]), last)),
        ),
        "{location}": mixture(
            (0.6, town),
            (0.2, phrase(among("New North South East West Upper Lower Port Lake"), town)),
            (0.12, phrase(town, among("Valley Bay County Forest Island"))),
            (0.04, phrase(choose(["Isle of", "Gulf of", "Cape of"]), town)),
            (0.04, phrase(choose(["Port of New", "Republic of South"]), town)),
        ),
        "{organisation}": mixture(
            (0.25, brand),
            (0.2, phrase(brand, among("Group Holdings Bank Airways Motors Press"))),
            (0.2, phrase(town, choose(["University", "United", "City Council", "Opera"]))),
            (0.12, phrase(choose(["University of", "Bank of", "Museum of"]), town)),
            (0.1, phrase(choose(["Ministry of", "Department of"]), field)),
            (0.06, phrase(last, choose(["& Sons", "& Daughters"]))),
            (0.07, phrase(choose(["Royal Society of", "National Council for"]), field)),
        ),
        "{product}": mixture(
            (0.4, phrase(brand, number(2, 9))),
            (0.3, phrase(brand, among("Pro Mini Air Max Plus One"))),
            (0.15, phrase(brand, among("Pro Mini Max"), number(10, 99))),
            (0.15, combine(brand, choose(["-X", "-Z", "-S"]))),
        ),
        "{role}": role,
        "{someone}": phrase(determiner, role),
        "{thing}": mixture(
            (0.6, phrase(determiner, noun)),
            (0.4, phrase(determiner, adjective, noun)),
        ),
        "{of}": mixture(
            (0.55, choose(["of"])),
            (0.45, among("for from near behind against without inside about beyond")),
        ),
        "{adjective}": adjective,
        "{verb}": verb,
        "{adverb}": adverb,
        "{number}": mixture(
            (0.5, among("two three four five six seven eight nine ten twelve twenty")),
            (0.5, number(11, 980)),
        ),
        "{year}": number(1890, 2024),
        "{month}": among("""
            January February March April May June July August September October November
            December
        """),
        "{day}": among("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
        "{people}": among(
            "reporters students workers farmers voters doctors teachers soldiers visitors"
        ),
    }
    return Vocabulary(
        slots=slots,
        types={f"{{{name}}}": name for name in ("person", "location", "organisation", "product")},
        cut=str.split,
        end=".",
        common_words=tuple(_ENGLISH_COMMON.split()),
    )


def _chinese() -> Vocabulary:
    given = choose(
        "安柏晨承达东恩芳飞刚光国海浩和红华慧佳嘉建洁杰静军君凯兰乐丽莉亮林玲龙梅敏明娜宁鹏平琪强青清庆"
        "蓉瑞珊诗思涛婷伟文武霞翔晓欣新鑫秀雪雅燕阳瑶依怡艺颖永勇宇雨玉云泽振志忠子"
    )
    family = mixture(
        (
            0.94,
            choose("王李张刘陈杨黄赵周吴徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾萧田董袁潘"),
        ),
        (0.06, choose(["欧阳", "司马", "诸葛", "上官"])),
    )
    place = combine(
        choose("安白北宝昌长常成澄川春大丹东芳丰福古广桂海汉合河黑虹华怀淮黄惠吉江金锦"),
        choose("安昌城川德定封阜港海和河湖华江津京康乐里临陵宁平浦泉山水台阳远云州"),
    )
    brand = combine(
        choose("百博畅辰诚创达鼎方飞丰冠光瀚航恒宏华汇嘉捷金锦君凯康科蓝乐联龙美明鹏启勤清锐"),
        choose("邦宝畅川达德鼎帆丰格冠瀚航恒虹佳杰科朗乐力联凌美铭诺普奇瑞盛思腾通图维信讯亚洋"),
    )
    slots: dict[str, Choice] = {
        "{person}": combine(family, mixture((0.35, given), (0.65, combine(given, given)))),
        "{location}": combine(
            place,
            choose(
                ["市", "市", "县", "省", "镇", "区", "山", "湖", "岛", "大桥", "机场", "火车站"]
            ),
        ),
        "{organisation}": mixture(
            (
                0.45,
                combine(brand, choose(["公司", "集团", "银行", "科技公司", "出版社", "航空"])),
            ),
            (0.4, combine(place, choose(["大学", "医院", "博物馆", "日报", "研究院", "队"]))),
            (
                0.15,
                combine(
                    choose(["国家", "中央", "地方"]),
                    choose(["教育", "文化", "卫生", "交通"]),
                    choose(["局", "部", "委员会"]),
                ),
            ),
        ),
        "{product}": mixture(
            (0.4, combine(brand, choose(["X", "S", "Pro", "Max", "Air", "Mini"]))),
            (0.3, combine(brand, choose(["A", "K", "M", "T"]), number(1, 99))),
            (0.3, combine(brand, number(1, 9), choose(["号", "型", "代"]))),
        ),
        "{role}": among("""
            记者 教授 市长 校长 医生 律师 导演 作家 画家 工程师 主任 经理 总裁 部长 教练 队长
            法官 司机 船长 专家 代表 主席 秘书 科学家 历史学家
        """),
        "{noun}": among("""
            会议 项目 计划 报告 问题 市场 经济 学校 公园 比赛 演出 电影 音乐 历史 文化 工程 铁路
            公路 桥梁 港口 政策 法律 合同 技术 产品 设备 资料 资金 价格 质量 环境 空气 河流 森林
            天气 工作 生活 时间 机会 方法 结果 消息 新闻 故事 小说 展览 图书 食品 农业 工业 能源
            教育 健康 交通 安全 旅游 城市 乡村 工厂 商店 医疗 研究 调查 实验 设计 建筑 房屋 土地
            人口 社会 国家 世界 地区 中心 部门 系统 网络 数据 信息
        """),
        "{adjective}": among("""
            重要 新的 巨大 复杂 简单 稳定 困难 安全 美丽 古老 现代 普通 特别 明显 严重 积极 丰富
            著名 独特 全面 完整 有效 公开 正式 传统 先进
        """),
        "{verb}": among("""
            宣布 介绍 讨论 研究 参加 支持 反对 批准 发布 完成 开始 建设 改进 购买 出售 访问 检查
            组织 推动 负责 影响 提高 减少 增加 保护 恢复 收集 记录 解释 关注
        """),
        "{number}": mixture(
            (0.6, number(2, 900)),
            (0.4, among("一 两 三 四 五 六 七 八 九 十")),
        ),
        "{year}": number(1950, 2024),
        "{month}": number(1, 12),
        "{time}": among("昨天 今天 去年 今年 近日 目前 上午 下午 周一 周三 周五 春天 秋天"),
    }
    return Vocabulary(
        slots=slots,
        types={
            "{person}": "人物",
            "{location}": "地点",
            "{organisation}": "机构",
            "{product}": "产品",
        },
        cut=_cut_characters,
        end="。",
        common_words=tuple("的了在是和有不这个人中大上我们他为来到时地出就也得可下对年子会以要"),
    )
