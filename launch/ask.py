"""Ask for a Linux command in Korean: python -m launch.ask --query "디스크 사용량을 확인해줘"."""

from hybriko_jax.console.ask import main
from hybriko_jax.console.model import kept_prefix as kept_prefix
from hybriko_jax.console.model import shipped

SHIPPED = shipped()

if __name__ == "__main__":
    main()
