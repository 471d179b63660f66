using System.Globalization;
using MicroVm.Vmm.Machine;

namespace MicroVm.Vmm.Startup;

/// <summary>The arguments of <c>microvm-vmm</c>.</summary>
public sealed record CommandLineOptions
{
    /// <summary>The text of <c>--help</c>.</summary>
    public const string Help =
        """
        usage: microvm-vmm --config FILE | --config-fd N
          Runs one virtual machine on /dev/kvm until it ends.
          --config FILE   read the machine's configuration, a JSON object, from FILE
          --config-fd N   read it from the inherited descriptor N
          --version       print the version
          --help          print this text
        exit status: 0 powered off, 1 error (a line on standard error says what), 3 reset, 4 triple fault,
          5 the guest stopped in a way that cannot be continued, 6 stopped through the control socket or a signal

        """;

    /// <summary>Path of the configuration.</summary>
    public string? ConfigPath { get; private init; }

    /// <summary>Descriptor of the configuration.</summary>
    public int? ConfigFd { get; private init; }

    /// <summary>Print the version and end.</summary>
    public bool ShowVersion { get; private init; }

    /// <summary>Print the help and end.</summary>
    public bool ShowHelp { get; private init; }

    /// <summary>Parses; <c>--name=value</c> is as good as <c>--name value</c>.</summary>
    /// <exception cref="ConfigException">An argument is unknown, lacks its value, or is given twice.</exception>
    public static CommandLineOptions Parse(ReadOnlySpan<string> arguments)
    {
        CommandLineOptions options = new();
        for (int i = 0; i < arguments.Length; i++)
        {
            string name = arguments[i];
            string? value = null;
            int equals = name.IndexOf('=', StringComparison.Ordinal);
            if (equals > 0)
            {
                value = name[(equals + 1)..];
                name = name[..equals];
            }

            switch (name)
            {
                case "--help" or "-h" when value is null:
                    return options with { ShowHelp = true };
                case "--version" or "-v" when value is null:
                    return options with { ShowVersion = true };
                case "--config" or "--config-fd" when options.ConfigPath is not null || options.ConfigFd is not null:
                    throw new ConfigException("the configuration is given twice; give one of --config and --config-fd");
                case "--config" or "--config-fd" when value is null && ++i == arguments.Length:
                    throw new ConfigException($"{name} needs a value; see --help");
                case "--config":
                    options = options with { ConfigPath = value ?? arguments[i] };
                    break;
                case "--config-fd":
                    string text = value ?? arguments[i];
                    options = int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int fd)
                        ? options with { ConfigFd = fd }
                        : throw new ConfigException($"--config-fd {text}: not the number of a descriptor");
                    break;
                default:
                    throw new ConfigException($"unknown argument {arguments[i]}; see --help");
            }
        }

        return options.ConfigPath is not null || options.ConfigFd is not null
            ? options
            : throw new ConfigException("no configuration; give --config FILE or --config-fd N (see --help)");
    }
}
