"""Names, paths, hosts and numbers for synthetic requests, drawn from large seeded pools.

The words of the pools are dealt out to the train and held-out splits, so that no name made for
one is made for the other. Closed classes (extensions, numbers, permission digits) are shared.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from hybriko_jax.korean import EXTENSIONS, SPOKEN_KINDS

ENGLISH, KOREAN = (
    tuple((files("hybriko_jax.data") / "words" / f"{name}.txt").read_text("utf-8").split())
    for name in ("english", "korean")
)
# Names that many folders hold, and places that many people name.
_FAMILIAR_FILES = tuple(
    """README.md Makefile Dockerfile LICENSE .env .gitignore .bashrc .vimrc .zshrc .profile
    requirements.txt package.json tsconfig.json pyproject.toml setup.py main.py app.py test.py
    train.py utils.py manage.py config.yaml config.json settings.py docker-compose.yml index.html
    style.css main.c main.cpp hello.c a.out app.log error.log access.log debug.log server.log
    test.txt memo.txt todo.txt notes.md report.docx data.csv result.csv photo.jpg logo.png
    backup.tar.gz backup.sql dump.sql run.sh deploy.sh install.sh start.sh go.mod Cargo.toml
    ~/.bashrc ~/.ssh/config ~/.bash_history ~/.profile ~/.gitconfig /etc/passwd /etc/hosts
    /etc/fstab /etc/hostname /etc/resolv.conf /etc/crontab /etc/group /etc/os-release
    /etc/ssh/sshd_config /etc/nginx/nginx.conf /etc/sudoers /var/log/syslog /var/log/auth.log
    /var/log/messages /var/log/dmesg /var/log/nginx/access.log /var/log/nginx/error.log
    /proc/cpuinfo /proc/meminfo /tmp/test.txt /tmp/output.log""".split()
)
_FAMILIAR_FOLDERS = tuple(
    """src lib bin docs doc data test tests tmp temp log logs build dist node_modules assets images
    img static public scripts config conf backup backups old new output outputs results models
    notebooks venv .git .ssh .cache .config __pycache__ Downloads Documents Desktop Pictures Music
    Videos downloads documents desktop pictures project projects work workspace home www html
    다운로드 문서 사진 음악 바탕화면 동영상 백업 프로젝트 과제 자료 임시 내문서 작업 업무 개인
    ~/Downloads ~/Documents ~/Desktop ~/Pictures ~/projects ~/workspace ~/work ~/.ssh ~/.config
    ~/다운로드 ~/문서 ~/바탕화면
    /etc /var/log /tmp /home /usr/bin /usr/local/bin /opt /var/www/html /etc/nginx /srv /mnt/data
    /var/lib /usr/share /media/usb /root /boot""".split()
)
_FAMILY_NAMES = tuple("김이박최정강조윤장임한오서신권황안송류홍전고문손양배백허남심노하")
_GIVEN_NAMES = tuple("민서준지우현도윤예은수하영진유경주선미호성재원태연희정혜승나라동아인")
# Sounds of made-up Korean words: initials and vowels by how often they come, finals mostly absent.
_LEADS = (0, 0, 2, 3, 5, 6, 6, 7, 9, 9, 11, 11, 11, 12, 12, 14, 15, 16, 17, 18, 18)
_VOWELS = (0, 0, 0, 1, 4, 4, 5, 6, 8, 8, 8, 9, 13, 13, 18, 18, 20, 20, 20, 2, 12, 17)
_FINALS = (0, 0, 0, 0, 0, 0, 0, 1, 4, 4, 8, 8, 16, 17, 19, 21, 21, 4)
_QUALIFIERS = (
    "최종",
    "수정",
    "사본",
    "원본",
    "복사본",
    "초안",
    "확정",
    "안",
    "v2",
    "1",
    "2",
    "임시",
)
_FILE_EXTENSIONS = tuple(e for e in EXTENSIONS if e not in ("yml", "jpeg", "tsv", "dat", "db"))
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")
_TLDS = ("com", "net", "org", "io", "dev", "kr", "co.kr", "ac.kr", "go.kr", "internal", "local")
_ROOTS = ("/var/log", "/etc", "/srv", "/opt", "/tmp", "/usr/local", "/data", "/mnt", "/home")
_PROCESSES = tuple(
    """nginx mysqld python python3 java node redis-server postgres sshd docker chrome firefox bash
    code httpd php-fpm mongod celery gunicorn uvicorn jupyter cron apache2 dockerd kubelet vim tmux
    zsh systemd ffmpeg""".split()
)


def in_held_out(word: str) -> bool:
    """Whether a word of a pool belongs to the held-out split."""
    return hashlib.blake2b(word.encode(), digest_size=2).digest()[0] < 50


@dataclass(frozen=True)
class Values:
    """Draws values of one split with one random generator."""

    rng: random.Random
    english: tuple[str, ...]
    korean: tuple[str, ...]
    processes: tuple[str, ...]
    familiar_files: tuple[str, ...]
    familiar_folders: tuple[str, ...]

    @classmethod
    def of(cls, rng: random.Random, held_out: bool) -> Values:
        """The pools of a split."""
        pools = (ENGLISH, KOREAN, _PROCESSES, _FAMILIAR_FILES, _FAMILIAR_FOLDERS)
        return cls(rng, *(tuple(w for w in p if in_held_out(w) == held_out) for p in pools))

    def draw(self, slot: str) -> str:
        """A value for a slot's name: file, dir, name, pattern, host, url, ..."""
        return getattr(self, slot)()

    def file(self) -> str:
        if self.rng.random() < 0.12:
            return self.rng.choice(self.familiar_files)
        return self._placed(self._file_name())

    def dir(self) -> str:
        rng = self.rng
        if rng.random() < 0.16:
            return rng.choice(self.familiar_folders)
        if rng.random() < 0.68:
            return self._stem(space=0.05)
        return self._placed(self._stem(space=0.02), 1.0)

    def name(self) -> str:
        return self._file_name() if self.rng.random() < 0.5 else self._stem(space=0.04)

    def name_file(self) -> str:
        return self._file_name()

    def name_dir(self) -> str:
        return self._stem(space=0.04)

    def archive(self) -> str:
        return self._stem(space=0.02) + self._pick(_ARCHIVES, 3)

    def pattern(self) -> str:
        rng = self.rng
        kind = rng.random()
        if kind < 0.4:
            word = self._english()
            return rng.choice(
                (word, word.upper(), word.capitalize(), f"{word}_{self._english()}", word + "()")
            )
        if kind < 0.5:
            return rng.choice(("ERROR", "WARN", "TODO", "FIXME", "404", "500", "timeout", "failed"))
        if kind < 0.6:
            return f"{self._english()} {self._english()}"
        if kind < 0.68:
            return f"{rng.randint(2018, 2027)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
        if kind < 0.75:
            return str(rng.randint(10, 99999))
        if kind < 0.9:
            return self._korean()
        return f"{self._korean()} {self._korean()}"

    def host(self) -> str:
        rng = self.rng
        if rng.random() < 0.35:
            return ".".join(str(rng.randint(0 if i else 10, 254)) for i in range(4))
        if rng.random() < 0.12:
            return "localhost"
        labels = [self._english() for _ in range(rng.choice((1, 1, 2)))]
        return ".".join([*labels, rng.choice(_TLDS)]) if rng.random() < 0.9 else labels[0]

    def url(self) -> str:
        rng = self.rng
        host = self.host()
        if rng.random() < 0.25:
            host += f":{rng.choice((80, 3000, 5000, 8000, 8080, 8443, 9000, 9090))}"
        path = "".join("/" + self._english() for _ in range(rng.choice((0, 1, 1, 2, 3))))
        if rng.random() < 0.25:
            path += f"/{rng.randint(1, 9999)}"
        if rng.random() < 0.3:
            pairs = [f"{self._english()}={self._word()}" for _ in range(rng.choice((1, 1, 2)))]
            path += "?" + "&".join(pairs)
        return f"{rng.choice(('http', 'https', 'https'))}://{host}{path}"

    def url_file(self) -> str:
        rng = self.rng
        path = "".join(self._english() + "/" for _ in range(rng.choice((0, 1, 1, 2))))
        extension = rng.choice((*_ARCHIVES, ".zip", ".sh", ".csv", ".pdf", ".json", ".png", ".txt"))
        name = self._stem(korean=0.03, space=0) + extension
        return f"{rng.choice(('http', 'https', 'https'))}://{self.host()}/{path}{name}"

    def user(self) -> str:
        rng = self.rng
        common = ("root", "ubuntu", "postgres", "www-data", "nobody", "deploy", "git", "jenkins")
        pseudo = self._pseudo() + rng.choice(("", "", str(rng.randint(1, 99))))
        return rng.choice((rng.choice(common), self._english(), pseudo))

    def process(self) -> str:
        return self.rng.choice(self.processes)

    def pid(self) -> str:
        return str(self.rng.randint(2, 65535))

    def mode(self) -> str:
        rng = self.rng
        if rng.random() < 0.6:
            return rng.choice(
                ("755", "644", "600", "700", "777", "640", "664", "750", "400", "444")
            )
        return ("0" if rng.random() < 0.15 else "") + "".join(rng.choice("01234567") for _ in "rwx")

    def kind(self) -> tuple[str, str]:
        """How a kind of file is called, and its extension."""
        rng = self.rng
        if rng.random() < 0.4:
            spoken = rng.choice(tuple(SPOKEN_KINDS))
            return spoken, SPOKEN_KINDS[spoken]
        extension = rng.choice(EXTENSIONS)
        form = rng.choice(("{}", "{}", ".{}", ".{}", "*.{}"))
        spoken = extension.upper() if rng.random() < 0.12 else extension
        return form.format(spoken), extension

    def n(self) -> int:
        rng = self.rng
        if rng.random() < 0.75:
            return rng.randint(2, 30)
        return rng.choice((rng.randint(31, 999), 50, 100, 200, 500, 1000, rng.randint(1, 9) * 10))

    def count(self) -> str:
        """A number that is always typed in digits, as in `head -n 5`."""
        return str(self.n())

    def decoy_of(self, value: str) -> str:
        """A name like this one, but another."""
        rng = self.rng
        head, dot, extension = value.rpartition(".")
        folder, slash, stem = (head if dot else value).rpartition("/")
        tail = dot + extension if dot else ""
        changed = (
            stem + rng.choice(("2", "_old", "_new", "_backup", "1", "-copy", "_v2", "_최종")),
            rng.choice(("old_", "new_", "my_", "test_")) + stem,
            self._word(),
            self._stem(),
        )
        other = folder + slash + rng.choice(changed) + tail
        if dot and rng.random() < 0.25:
            other = head + "." + rng.choice(_FILE_EXTENSIONS)
        return other if other != value else other + "2"

    def _placed(self, name: str, chance: float = 0.2) -> str:
        """The name, now and then behind a path."""
        rng = self.rng
        if rng.random() >= chance:
            return name
        kind = rng.random()
        if kind < 0.5:
            folders = [self._stem(space=0) for _ in range(rng.choice((1, 1, 2)))]
            return "/".join([*folders, name])
        if kind < 0.65:
            return "~/" + "/".join([*[self._stem(space=0)] * rng.randint(0, 1), name])
        if kind < 0.9:
            return rng.choice(_ROOTS) + "/" + "/".join([*[self._word()] * rng.randint(0, 1), name])
        return rng.choice(("./", "../")) + name

    def _file_name(self) -> str:
        rng = self.rng
        stem = self._stem(space=0.06)
        kind = rng.random()
        if kind < 0.04:
            return rng.choice((stem, "." + self._english(), stem.capitalize()))
        if kind < 0.09:
            return f"{stem}({rng.choice(_QUALIFIERS)}).{rng.choice(_FILE_EXTENSIONS)}"
        if kind < 0.14:
            return f"{stem}-{rng.randint(0, 9)}.{rng.randint(0, 30)}.{rng.choice(_FILE_EXTENSIONS)}"
        if kind < 0.19:
            return f"{stem}.{rng.choice(_FILE_EXTENSIONS)}.{rng.choice(('bak', 'old', 'gz', '1'))}"
        return f"{stem}.{self._pick(_FILE_EXTENSIONS, 16)}"

    def _stem(self, korean: float = 0.36, space: float = 0.0) -> str:
        """A name without an extension."""
        rng = self.rng
        if rng.random() < korean:
            words = [self._korean() for _ in range(rng.choice((1, 1, 2, 2, 3)))]
            if rng.random() < 0.2:
                words.append(self._number())
            joint = " " if rng.random() < space * 2.5 else rng.choice(("", "", "_", "_", "-"))
            return joint.join(words)
        words = [self._word() for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
        if rng.random() < 0.2:
            words.append(self._number())
        if len(words) > 1 and rng.random() < 0.12:
            return words[0] + "".join(w.capitalize() for w in words[1:])
        joint = " " if rng.random() < space else rng.choice(("_", "_", "_", "-", ""))
        return joint.join(words)

    def _word(self) -> str:
        rng = self.rng
        kind = rng.random()
        if kind < 0.68:
            return self._english()
        if kind < 0.9:
            return self._pseudo()
        if kind < 0.95:
            return "".join(rng.choice("abcdef0123456789") for _ in range(rng.randint(3, 7)))
        return rng.choice(("IMG", "DSC", "a", "b", "x", "t", "v1", "v2", "tmp", "KakaoTalk"))

    def _korean(self) -> str:
        """A word, a person's name, or syllables that nobody has put together."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.68:
            return rng.choice(self.korean)
        if kind < 0.76:
            given = rng.choice(_GIVEN_NAMES) + rng.choice(_GIVEN_NAMES)
            return rng.choice(_FAMILY_NAMES) + given
        return "".join(
            chr(0xAC00 + 588 * rng.choice(_LEADS) + 28 * rng.choice(_VOWELS) + rng.choice(_FINALS))
            for _ in range(rng.choice((1, 2, 2, 3, 4)))
        )

    def _english(self) -> str:
        word = self.rng.choice(self.english)
        return word + "s" if self.rng.random() < 0.12 else word

    def _pseudo(self) -> str:
        rng = self.rng
        n = rng.choice((2, 2, 3))
        syllables = [
            rng.choice("bcdfghjklmnprstvwz")
            + rng.choice("aeiou")
            + rng.choice(("", "", "n", "r", "x"))
            for _ in range(n)
        ]
        return "".join(syllables)

    def _number(self) -> str:
        rng = self.rng
        year, month, day = rng.randint(2015, 2027), rng.randint(1, 12), rng.randint(1, 28)
        return rng.choice(
            (
                str(rng.randint(0, 99)),
                f"{rng.randint(1, 99):02}",
                str(year),
                f"{month:02}{day:02}",
                f"{year}{month:02}{day:02}",
                f"{year}-{month:02}-{day:02}",
                f"v{rng.randint(1, 9)}",
            )
        )

    def _pick(self, items: Sequence[str], common: int) -> str:
        """One of the first few more often than the rest."""
        return self.rng.choice(items[:common] if self.rng.random() < 0.7 else items)
