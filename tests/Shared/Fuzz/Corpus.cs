using System.Globalization;

namespace MicroVm.Tests.Shared.Fuzz;

/// <summary>Inputs of one target that reached something new, and changes of them.</summary>
internal sealed class Corpus
{
    private const int MaxInputs = 4096, MaxLength = 8192, FreshInputs = 16, Kept = 24;
    private readonly List<byte[]> _inputs = [];

    public int Count => _inputs.Count;

    /// <summary>The inputs of the target that are kept in the tree, copied beside the tests.</summary>
    public static IEnumerable<byte[]> KeptInputs(string target)
    {
        string folder = Path.Combine(AppContext.BaseDirectory, "Fuzz", "corpus", target);
        return Directory.Exists(folder) ? Directory.EnumerateFiles(folder).Order(StringComparer.Ordinal).Select(File.ReadAllBytes) : [];
    }

    public void Add(byte[] input)
    {
        if (_inputs.Count < MaxInputs)
        {
            _inputs.Add(input);
        }
    }

    /// <summary>A new input: random, or a changed one; later ones, which went further, more often.</summary>
    public byte[] Next(Random random)
    {
        if (_inputs.Count < FreshInputs || random.Next(16) == 0)
        {
            byte[] fresh = new byte[1 << random.Next(4, 11)];
            random.NextBytes(fresh);
            return fresh;
        }

        byte[] parent = _inputs[Math.Max(random.Next(_inputs.Count), random.Next(_inputs.Count))];
        byte[] changed = random.Next(6) == 0 ? Spliced(parent, _inputs[random.Next(_inputs.Count)], random) : Spoiling.Bytes(parent, random);
        return changed.Length switch
        {
            0 => [0],
            > MaxLength => changed[..MaxLength],
            _ => changed,
        };
    }

    /// <summary>Writes the last of the inputs, which went furthest, and are few: what the tree keeps of a run.</summary>
    public void Save(string folder)
    {
        Directory.CreateDirectory(folder);
        foreach (byte[] input in _inputs.TakeLast(Kept))
        {
            File.WriteAllBytes(Path.Combine(folder, Name(input)), input);
        }
    }

    /// <summary>A file name that the content gives.</summary>
    public static string Name(byte[] input) => Hash(input).ToString("x8", CultureInfo.InvariantCulture);

    /// <summary>FNV-1a.</summary>
    public static uint Hash(byte[] input) => input.Aggregate(2166136261, static (hash, b) => unchecked((hash ^ b) * 16777619));

    private static byte[] Spliced(byte[] first, byte[] second, Random random) =>
        [.. first.AsSpan(0, random.Next(first.Length + 1)), .. second.AsSpan(random.Next(second.Length + 1))];
}
