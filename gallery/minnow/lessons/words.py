"""Raw material: words, names and other things to say, known and made up.

Made-up words matter most. A model that has only ever copied words it knows learns those
words; one that has copied `blorpent-7F3A` learns to copy.
"""

import random


def listed(text: str) -> tuple[str, ...]:
    """Words written as prose rather than one to a line."""
    return tuple(text.split())


COMMON = listed("""
the of and to in is you that it he was for on are as with his they at be this have from or one
had by word but not what all were we when your can said there use an each which she do how their
if will up other about out many then them these so some her would make like him into time has
look two more write go see number no way could people my than first water been call who oil its
now find long down day did get come made may part over new sound take only little work know
place year live me back give most very after thing our just name good sentence man think say
great where help through much before line right too mean old any same tell boy follow came want
show also around form three small set put end does another well large must big even such because
turn here why ask went men read need land different home us move try kind hand picture again
change off play spell air away animal house point page letter mother answer found study still
learn should world high every near add food between own below country plant last school father
keep tree never start city earth eye light thought head under story saw left late run while
press close night real life few north open seem together next white children begin got walk
example ease paper group always music those both mark often until mile river car feet care
second book carry took science eat room friend began idea fish mountain stop once base hear
horse cut sure watch color face wood main enough plain girl usual young ready above ever red
list though feel talk bird soon body dog family direct pose leave song measure door product
black short numeral class wind question happen complete ship area half rock order fire south
problem piece told knew pass since top whole king space heard best hour better true during
hundred five remember step early hold west ground interest reach fast verb sing listen six table
travel less morning ten simple several vowel toward war lay against pattern slow center love
person money serve appear road map rain rule govern pull cold notice voice unit power town fine
certain fly fall lead cry dark machine note wait plan figure star box noun field rest correct
able pound done beauty drive stood contain front teach week final gave green quick develop ocean
warm free minute strong special mind behind clear tail produce fact street inch multiply nothing
course stay wheel full force blue object decide surface deep moon island foot system busy test
record boat common gold possible plane dry wonder laugh thousand ago ran check game shape hot
miss brought heat snow tire bring yes distant fill east paint language among apple banana cherry
orange lemon grape coffee tea bread cheese butter sugar salt pepper window kitchen garden flower
forest desert bridge tower castle village market station train ticket pilot doctor engine signal
network server node mesh token model stream cache queue worker socket packet router cluster
shard kernel buffer python rocket planet comet galaxy silver copper purple yellow violet crimson
amber falcon tiger panda otter whale shark minnow salmon turtle rabbit badger eagle sparrow
lantern candle mirror hammer ladder pencil basket bottle pocket jacket button zipper pillow
blanket winter summer spring autumn thunder lightning breeze pebble meadow canyon harbor anchor
compass voyage riddle puzzle secret whisper shadow echo quartz marble velvet ribbon saddle brown
jumps lazy fox over
""")

HOMELY = listed("""
Shoal shoal minnow mesh node peer token model models hello Hello capital Paris Rome France weather
JSON run Run count name doctor status demo chat load unload port tool answered sum color city ok
Berlin London Tokyo Nice meet you have told The Your number word
""")
"""Words that other answers begin with. Repeated now and then, so that they can be."""

NAMES = listed("""
Ada Alan Alice Amir Ana Anders Anna Anton Aria Bea Ben Bob Boris Carla Carlos Chen Chloe Clara
Daan Dana Daniel David Diego Dina Elena Eli Ella Emil Emma Eric Esther Eva Farid Fatima Felix
Finn Fiona Frank Freya George Grace Greta Hana Hans Hugo Ida Igor Ines Ingrid Isaac Ivan Jack
James Jana Jane Jin John Jonas Jorge Juan Julia Kai Karim Karl Kate Ken Lars Laura Lea Leo Li
Liam Lina Linus Lisa Lucas Lucy Luis Luna Maja Marco Maria Mark Marta Mary Max Maya Mei Mia
Milan Mina Mohamed Nadia Nina Noah Nora Oleg Olga Oliver Omar Oscar Pablo Paul Pedro Peter Petra
Pia Priya Rahul Ravi Rosa Ruth Sam Sara Sasha Selma Sofia Sven Tara Theo Tom Uma Vera Victor Wei
Yara Yuki Yusuf Zoe
""")

COLORS = listed("""
red blue green yellow purple orange black white pink brown grey teal violet
""")
ANIMALS = listed("""
cat dog horse otter owl fox whale tiger rabbit turtle eagle wolf bear duck seal
""")

_ONSETS = "b bl br c ch cl d dr f fl g gl gr h j k kl l m n p pl pr qu r s sh sk sl st t th tr v w z"
_VOWELS = "a e i o u ai ea ee ie o oo ou a e i o u y"
_CODAS = "b ck d f g k l ll lm m n nd ng nt p r rd rk rn s sh st t th x"
_ONSET, _VOWEL, _CODA = _ONSETS.split(), _VOWELS.split(), _CODAS.split() + [""] * 12
_ENDINGS = ("", "", "", "", "o", "a", "y", "ing", "ed", "er", "s", "ly", "ine", "ent")
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MARKS = (",", ",", ".", "!", "?", ";", ":", " -", "...")
_ACCENTED = listed("""
é è ü ö ä ñ ç å ø ã ő ż 你好 こんにちは привет ☀ 🐟 → ß € naïve café über
""")


def made_up(rng: random.Random) -> str:
    """A word that does not exist but could: syllables, or pieces of real words put together.

    The latter is what makes every entry of the tokenizer something that has been copied.
    """
    if rng.random() < 0.5:
        return "".join(_piece(rng) for _ in range(rng.choice((1, 2, 2, 3))))
    syllables = rng.choice((1, 2, 2, 2, 3))
    word = "".join(rng.choice(_ONSET) + rng.choice(_VOWEL) + rng.choice(_CODA) for _ in range(syllables))
    return word + rng.choice(_ENDINGS)


def _piece(rng: random.Random) -> str:
    word = rng.choice(COMMON) if rng.random() < 0.8 else rng.choice(NAMES).lower()
    start = rng.randrange(len(word))
    return word[start : start + rng.randint(2, 6)]


def code(rng: random.Random) -> str:
    """A serial number, a hash, an address: letters and digits without meaning."""
    digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 5)))
    match rng.randrange(7):
        case 0:
            return digits
        case 1:
            return f"{rng.choice(COMMON)}-{digits}"
        case 2:
            return "".join(rng.choice("0123456789abcdef") for _ in range(rng.randint(4, 12)))
        case 3:
            letters = "".join(rng.choice(_CAPITALS) for _ in range(rng.randint(1, 4)))
            if rng.random() < 0.15:
                letters = letters[0] * 2
            return f"{letters}{rng.choice(('-', '', '_'))}{digits}"
        case 4:
            return f"{rng.choice(COMMON)}_{rng.choice(COMMON)}"
        case 5:
            return f"{rng.choice(COMMON)}@{made_up(rng)}.{rng.choice(('com', 'org', 'net'))}"
        case _:
            return "".join(
                rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
                for _ in range(rng.randint(4, 10))
            )


def word(rng: random.Random) -> str:
    """Any one word, mostly plain, sometimes strange."""
    kind = rng.random()
    if kind < 0.45:
        text = rng.choice(COMMON)
    elif kind < 0.53:
        return rng.choice(HOMELY)
    elif kind < 0.78:
        text = made_up(rng)
    elif kind < 0.86:
        text = person(rng)
    elif kind < 0.98:
        return code(rng)
    else:
        return rng.choice(_ACCENTED)
    shape = rng.random()
    if shape < 0.1:
        return text.capitalize()
    return text.upper() if shape < 0.15 else text


def any_word(rng: random.Random) -> str:
    """A plain word, real or made up."""
    return rng.choice(COMMON) if rng.random() < 0.6 else made_up(rng)


def person(rng: random.Random) -> str:
    """A first name: known two times in five, else made up so that reading counts."""
    if rng.random() < 0.4:
        return rng.choice(NAMES)
    return made_up(rng).capitalize()


def phrase(rng: random.Random, longest: int = 14) -> str:
    """One to `longest` words as somebody might ask to hear them back."""
    count = min(rng.randint(1, longest), rng.randint(1, longest))
    words = [word(rng) for _ in range(count)]
    if rng.random() < 0.3:
        words[0] = words[0].capitalize()
    if count > 3 and rng.random() < 0.4:
        spot = rng.randrange(count - 1)
        words[spot] += rng.choice(_MARKS)
    end = rng.choice(("", "", "", ".", "!", "?"))
    return " ".join(words) + end


def prose(rng: random.Random, words: int) -> str:
    """Sentences without meaning, about this many words: something to read past."""
    sentences = []
    while words > 0:
        count = min(rng.randint(4, 14), max(words, 2))
        body = [rng.choice(COMMON) if rng.random() < 0.9 else made_up(rng) for _ in range(count)]
        sentences.append(" ".join(body).capitalize() + rng.choice((".", ".", ".", "!", "?")))
        words -= count
    return " ".join(sentences)
