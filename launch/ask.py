"""Ask for a Linux command in Korean: python -m launch.ask --query "디스크 사용량을 확인해줘"."""

from hybriko_jax.console.ask import main

if __name__ == "__main__":
    main()
